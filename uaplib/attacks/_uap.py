"""Universal adversarial perturbations (Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, 2017)."""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uaplib import provenance
from uaplib.attacks import runs
from uaplib.attacks._deepfool import CONVENTIONS, LinearStep, meaningful
from uaplib.balls import NormBall
from uaplib.checks import (
    ask,
    check_classifier,
    check_images,
    check_labels,
    real,
    true_or_false,
    warn_without_gradient,
    whole,
)
from uaplib.metrics import accuracy, fooling_rate, predict
from uaplib.perturbation import UniversalPerturbation, saturation

_STATE = ("passes", "position", "accepted", "moved", "screen", "gradients")


def uap(
    model: nn.Module,
    images: Tensor,
    ball: NormBall,
    *,
    labels: Tensor | None = None,
    held_out: Tensor | tuple[Tensor, Tensor | None] | None = None,
    seed: int = 0,
    target_rate: float = 0.8,
    max_passes: int = 10,
    num_classes: int = 10,
    overshoot: float = 0.02,
    max_iterations: int = 10,
    clip: bool = True,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation for all images: algorithm 1 of the paper, with the constants of the authors' code.

    The images are visited one by one in an order drawn from `seed`. An image that the perturbation v does not fool
    yet gets the DeepFool step (always in the l2 norm, whatever the ball) that would fool it on top of v; v plus the
    step is projected onto the ball. A step is kept only if DeepFool needed at most `max_iterations` - 2 iterations.
    Passes are repeated until the fooling rate on `images` reaches `target_rate`, or `max_passes` are done.

    images: crafting images, float (N, C, H, W) in [0, 1]. ball: the budget. labels: their true labels, held_out:
    other images, alone or as a pair with labels; both only feed the history, which holds one entry per pass (pass 0
    is v = 0) with the number of accepted steps, the l2 norm of v, in an l-infinity ball its saturation, and the
    fooling rate and accuracy on crafting and on held-out images. clip: whether image plus perturbation is clipped to
    [0, 1] while crafting and measuring; False gives the authors' program. source: the model's name, for the record.
    checkpoint: a file that is written after every pass and when the run is interrupted; a run with the same arguments
    continues from it, bit for bit.

    Raises ValueError or TypeError for bad images, labels or parameters, a model in training mode or one that does not
    return logits, or a checkpoint of another run. Warns when the gradient is zero everywhere, and when a checkpoint
    cannot be written.
    """
    check_images(images)
    num_outputs = check_classifier(model, images)
    numbers = checked(target_rate, max_passes, num_classes, overshoot, max_iterations, clip)
    run = begun(Run, model, images, ball, numbers, labels, held_out, seed, source, num_outputs)
    return runs.craft(run, checkpoint, progress)


def begun(
    kind: "type[Run]", model: nn.Module, images: Tensor, ball: NormBall, numbers: dict[str, Any],
    labels: Tensor | None, held_out: Tensor | tuple[Tensor, Tensor | None] | None, seed: int, source: str,
    num_outputs: int,
) -> "Run":  # fmt: skip
    """Return the run with what `uap` is given, labels checked."""
    images = images.detach()
    sets = {"crafting": (images, labels)}
    if held_out is not None:
        sets["held_out"] = (held_out, None) if isinstance(held_out, Tensor) else held_out
    for data, truth in sets.values():
        if truth is not None:
            check_labels(truth, data, num_outputs)
    return kind(model, sets, ball, seed, source, provenance.images_record(images) | numbers, num_outputs)


def checked(target_rate, max_passes, num_classes, overshoot, max_iterations, clip) -> dict[str, Any]:
    """The settings as Python's numbers. Raises ValueError or TypeError, with the name, for a bad one."""
    numbers = real(target_rate=target_rate, overshoot=overshoot) | true_or_false(clip=clip)
    numbers |= whole(max_passes=max_passes, num_classes=num_classes, max_iterations=max_iterations)
    if not 0 < target_rate <= 1 or max_passes < 1 or max_iterations < 3 or num_classes < 2 or not overshoot >= 0:
        raise ValueError(
            "target_rate must lie in (0, 1], max_passes be at least 1, max_iterations at least 3, num_classes at "
            "least 2 and overshoot at least 0, "
            f"not {target_rate}, {max_passes}, {max_iterations}, {num_classes} and {overshoot}"
        )
    return numbers


def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
    """Return all settings; see `uaplib.attacks.methods`."""
    names, given = (inspect.signature(function).parameters for function in (checked, uap))
    return checked(**{name: given[name].default for name in names} | changes)


def run(
    model: nn.Module, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return uap(model, ball=ball, **settings, **data, **options)


class Run(runs.Run):
    """The perturbation, the pass, the position in it, and how many steps it has accepted.

    sets: images and labels or None, by the name under which the history speaks of them: "crafting" and "held_out".
    """

    unit = "image"
    name, first_screen, longest_screen = "uap", 1, 256

    def __init__(self, model, sets, ball, seed, source, parameters, num_outputs):
        super().__init__(self.name, model, ball, seed, source, parameters)
        self.sets, self.images, self.clip = sets, sets["crafting"][0], parameters["clip"]
        self.deepfool = LinearStep(
            p=2,
            num_classes=min(parameters["num_classes"], num_outputs),
            overshoot=parameters["overshoot"],
            # A step is kept only if at most this many iterations found it, so DeepFool need not go on.
            max_iterations=parameters["max_iterations"] - 2,
            convention=CONVENTIONS["universal"],
        )

    def begin(self) -> None:
        self.clean = {name: predict(self.model, data) for name, (data, _) in self.sets.items()}
        # Small steps would be lost in half precision.
        self.v = torch.zeros_like(self.images[:1], dtype=torch.promote_types(self.images.dtype, torch.float32))
        self.passes, self.position, self.accepted, self.moved, self.screen = 0, 0, 0, False, self.first_screen
        self.gradients = 0
        self.order = self.permutation()
        self.history = [self.measure()]

    def permutation(self) -> Tensor:
        """The order of this pass: the next permutation of the seed's own generator."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.passes + 1):
            permutation = torch.randperm(len(self.images), generator=generator)
        return permutation

    def measure(self) -> dict:
        """The history's entry for the present perturbation."""
        entry = {"pass": self.passes, "accepted": self.accepted, "l2_norm": self.v.norm().item()}
        if self.ball.p == math.inf:
            entry["saturation"] = saturation(self.v, self.ball)
        for name, (data, truth) in self.sets.items():
            labels = predict(self.model, data, self.v, clip=self.clip)
            entry[f"{name}_fooling_rate"] = fooling_rate(self.clean[name], labels).value
            if truth is not None:
                entry[f"{name}_accuracy"] = accuracy(labels, truth).value
        return entry

    def finished(self) -> bool:
        rate = self.history[-1]["crafting_fooling_rate"]
        return self.passes >= self.parameters["max_passes"] or rate >= self.parameters["target_rate"]

    def step(self) -> bool:
        """Visit a stretch of images; at the end of a pass, measure."""
        block = self.order[self.position : self.position + self.screen]
        visited = self.visit(block)
        # As the perturbation gets better, longer stretches of images are fooled already.
        self.screen = min(2 * self.screen, self.longest_screen) if visited == len(block) else max(1, visited)
        self.position += visited
        if self.position < len(self.order):
            return False
        self.end_pass()
        return True

    def visit(self, block: Tensor) -> int:
        """Visit images of `block` in order until one changes the perturbation; return how many were visited.

        Which of them are fooled is asked of the network once for the whole block: the answers hold as long as the
        perturbation stays what it is.
        """
        perturbed = self.perturbed(self.images[block])
        with torch.no_grad():
            fooled = ask(self.model, perturbed).argmax(1) != self.clean["crafting"][block]
        for position in (~fooled).nonzero().flatten().tolist():
            step, label, new_label = self.smallest_step(perturbed[position : position + 1])
            self.moved = self.moved or bool(step.any())
            if new_label != label and meaningful(step):
                self.v, self.accepted = self.ball.project(self.v + step), self.accepted + 1
                return position + 1
        return len(block)

    def smallest_step(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """DeepFool's steps, labels and new labels; an iteration costs a gradient for each rival."""
        steps, iterations, labels, new_labels = self.deepfool.attack(self.model, images, None)
        self.gradients += int(iterations.sum()) * (self.deepfool.num_classes - 1)
        return steps, labels, new_labels

    def perturbed(self, images: Tensor) -> Tensor:
        sums = (images + self.v).to(images)
        return sums.clamp(0, 1) if self.clip else sums

    def end_pass(self) -> None:
        self.passes += 1
        self.history.append(self.measure())
        if self.passes == 1 and not (self.moved or self.accepted):
            warn_without_gradient(torch.ones(len(self.images), dtype=torch.bool))
        self.position, self.accepted, self.screen, self.order = 0, 0, self.first_screen, self.permutation()

    def progress(self) -> tuple[int, int]:
        return self.passes * len(self.images) + self.position, self.parameters["max_passes"] * len(self.images)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"v": self.v}, {name: getattr(self, name) for name in _STATE}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        vars(self).update(rest)
        self.v, self.order = tensors["v"].to(self.images.device), self.permutation()

    def delta(self) -> Tensor:
        return self.v

    def counts(self) -> dict:
        return {"gradients": self.gradients}

    def told(self) -> dict[str, str]:
        (_, labels), held_out = self.sets["crafting"], self.sets.get("held_out", (None, None))
        named = {"labels": labels, "held_out": held_out[0], "held_out labels": held_out[1]}
        return {name: provenance.sha256_of(tensor) for name, tensor in named.items() if tensor is not None}
