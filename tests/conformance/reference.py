"""DeepFool and UAP as their authors wrote them: one image at a time, one backward pass a class, nothing cached.

Written from the published algorithms and the constants of the authors' programs, sharing no code with `uaplib`.
"""

import copy
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


# The attacks since 2018: plain loops on batches that are given, in the order of the published programs.


def _gradient(loss, model, images, v, clip=True):
    """The gradient with respect to v of the mean of `loss`, a function of logits."""
    v = v.clone().requires_grad_()
    seen = torch.clamp(images + v, 0, 1) if clip else images + v
    loss(model(seen)).mean().backward()
    return v.grad


def _clipped_cross_entropy(logits, labels, beta):
    each = [-torch.log_softmax(row, 0)[label] for row, label in zip(logits, labels, strict=True)]
    return torch.stack([torch.minimum(loss, torch.tensor(beta, dtype=loss.dtype)) for loss in each])


def sgd_uap(model, batches, *, eps, step, beta, momentum=0.0):
    """Sign steps up the clipped cross-entropy; `batches` are pairs of images and the labels to leave."""
    v, memory = torch.zeros_like(batches[0][0][:1]), 0
    for images, labels in batches:
        g = _gradient(lambda logits, y=labels: _clipped_cross_entropy(logits, y, beta), model, images, v)
        if momentum:
            g = memory = momentum * memory + g / g.abs().sum()
        v = (v + step * g.sign()).clamp(-eps, eps)
    return v


def sga(model, batches, draws, *, eps, step, beta):
    """`draws`: for every batch the indices of each inner step."""
    v = torch.zeros_like(batches[0][0][:1])
    for (images, labels), inner in zip(batches, draws, strict=True):
        w, collected = v.clone(), []
        for some in inner:
            loss = lambda logits, y=labels[some]: _clipped_cross_entropy(logits, y, beta)  # noqa: E731
            collected.append(_gradient(loss, model, images[some], w))
            w = (w + step * collected[-1].sign()).clamp(-eps, eps)
        v = (v + step * (sum(collected) / len(collected)).sign()).clamp(-eps, eps)
    return v


def adam(v, gradients_at, batches, *, eps, rate, decay=0.0):
    """Adam's steps, each clamped to the ball, from v; `gradients_at` maps v and a batch to the gradient."""
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    for t, batch in enumerate(batches, 1):
        g = gradients_at(v, batch)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        v = (1 - rate * decay) * v
        v = v - rate * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        v = v.clamp(-eps, eps)
    return v


def df_uap(model, batches, *, eps, rate, kappa, target=None):
    """Margins of logits, image by image: from the labels, or to the target with the rival held fixed."""

    def loss(logits, labels):
        found = []
        for row, label in zip(logits, labels, strict=True):
            t = label if target is None else target
            rival = torch.cat([row[:t], row[t + 1 :]]).max()
            found.append(torch.clamp(row[t] - rival if target is None else rival.detach() - row[t], min=-kappa))
        return torch.stack(found)

    def gradients_at(v, batch):
        return _gradient(lambda logits: loss(logits, batch[1]), model, batch[0], v)

    return adam(torch.zeros_like(batches[0][0][:1]), gradients_at, batches, eps=eps, rate=rate)


def cosine_uap(model, start, batches, *, eps, rate):
    def gradients_at(v, batch):
        clean = model(batch[0]).detach()
        loss = lambda logits: (logits * clean).sum(1) / (logits.norm(dim=1) * clean.norm(dim=1))  # noqa: E731
        return _gradient(loss, model, batch[0], v)

    return adam(start, gradients_at, batches, eps=eps, rate=rate)


def dm_uap(model, start, batches, radii, *, eps, rate, decay, beta, weight_steps, image_steps, smoothing):
    """`radii`: for every batch how far weights and images move; the model is copied for each."""
    cross_entropy = torch.nn.functional.cross_entropy

    def gradients_at(v, batch):
        (images, labels), (rho, radius) = batch
        hard, x = copy.deepcopy(model), images.clone()
        for _ in range(weight_steps):
            hard.zero_grad()
            cross_entropy(hard(x), labels, label_smoothing=smoothing).backward()
            length = sum(p.grad.square().sum() for p in hard.parameters()).sqrt()
            with torch.no_grad():
                for p in hard.parameters():
                    p -= rho / weight_steps * p.grad / length
        for _ in range(image_steps):
            x = x.detach().requires_grad_()
            cross_entropy(hard(x), labels).backward()
            moved = []
            for image, g, origin in zip(x.detach(), x.grad, images, strict=True):
                step = image - radius / 8 * g / g.norm() - origin
                moved.append(origin + step * min(1, radius / step.norm().item()))
            x = torch.stack(moved).clamp(0, 1)
        return _gradient(lambda logits: -_clipped_cross_entropy(logits, labels, beta), hard, x, v, clip=False)

    together = list(zip(batches, radii, strict=True))
    return adam(start, gradients_at, together, eps=eps, rate=rate, decay=decay)
