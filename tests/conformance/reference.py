"""DeepFool and UAP as their authors wrote them: one image at a time, one backward pass a class, nothing cached.

Written from the published algorithms and the constants of the authors' programs, sharing no code with `uaplib`.
"""

from typing import NamedTuple

import torch


class Step(NamedTuple):
    perturbation: torch.Tensor
    iterations: int
    label: int
    new_label: int


def label_of(model, image):
    with torch.no_grad():
        return model(image).argmax().item()


def deepfool(model, image, *, p=2, num_classes=10, overshoot=0.02, max_iterations=50, margin=1e-4, inside=True):
    """The smallest step for one image (1, C, H, W).

    margin: 1e-4 in the authors' Python, 0 in MATLAB and in the copy that their UAP uses. inside: whether the network
    is linearised at the overshot point (Python) or at x + r (MATLAB).
    """
    with torch.no_grad():
        logits = model(image).flatten()
    classes = logits.argsort(descending=True)[:num_classes].tolist()
    label = new_label = classes[0]
    total = torch.zeros_like(image)
    iterations = 0
    while new_label == label and iterations < max_iterations:
        x = (image + (1 + overshoot) * total if inside else image + total).detach().requires_grad_()
        outputs = model(x).flatten()
        (own,) = torch.autograd.grad(outputs[label], x, retain_graph=True)
        shortest, normal = float("inf"), None
        for k in classes[1:]:
            (other,) = torch.autograd.grad(outputs[k], x, retain_graph=True)
            w = other - own
            dual = w.norm() if p == 2 else w.abs().sum()
            distance = ((outputs[k] - outputs[label]).abs() / dual).item()
            if distance < shortest:
                shortest, normal = distance, w
        direction = normal / normal.norm() if p == 2 else normal.sign()
        total = total + (shortest + margin) * direction
        new_label = label_of(model, image + (1 + overshoot) * total)
        iterations += 1
    return Step((1 + overshoot) * total, iterations, label, new_label)


def project(v, p, eps):
    if p == 2:
        return v * min(1, eps / v.norm().item())
    return v.sign() * v.abs().clamp(max=eps)


def fooling_rate(model, images, v):
    changed = [label_of(model, image[None]) != label_of(model, image[None] + v) for image in images]
    return sum(changed) / len(changed)


def uap(model, images, orders, *, p, eps, target_rate, num_classes=10, overshoot=0.02, max_iterations=10, batch=1):
    """Return the perturbation, and how many steps were kept and the fooling rate, before and after every pass.

    One order is one pass. batch: how many images are visited before their steps are added and projected; the authors'
    is 1.
    """
    v = torch.zeros_like(images[:1])
    rates, kept = [0.0], [0]
    for order in orders:
        if rates[-1] >= target_rate:
            break
        kept.append(0)
        for start in range(0, len(order), batch):
            moved = v
            for index in order[start : start + batch]:
                image = images[index : index + 1]
                if label_of(model, image) == label_of(model, image + v):
                    step = deepfool(model, image + v, num_classes=num_classes, overshoot=overshoot,
                                    max_iterations=max_iterations, margin=0)  # fmt: skip
                    if step.iterations < max_iterations - 1:
                        moved = moved + step.perturbation
                        kept[-1] += 1
            v = v if moved is v else project(moved, p, eps)
        rates.append(fooling_rate(model, images, v))
    return v, list(zip(kept, rates, strict=True))
