"""Universal adversarial perturbations (Moosavi-Dezfooli, Fawzi, Fawzi and Frossard, 2017)."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import provenance
from uaplib.attacks._deepfool import CONVENTIONS, LinearStep, meaningful
from uaplib.balls import NormBall
from uaplib.checks import (
    ask,
    check_classifier,
    check_images,
    check_labels,
    check_seed,
    plain,
    warn_without_gradient,
    whole,
)
from uaplib.devices import device_name
from uaplib.files import save_checkpoint
from uaplib.metrics import accuracy, fooling_rate, predict
from uaplib.perturbation import UniversalPerturbation

_LONGEST_SCREEN = 256
NUMBERS = ("target_rate", "max_passes", "num_classes", "overshoot", "max_iterations", "clip")  # what a run depends on


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
    is v = 0) with the number of accepted steps, and the fooling rate and accuracy on crafting and on held-out images.
    clip: whether image plus perturbation is clipped to [0, 1] while crafting and measuring; False gives the authors'
    program.
    source: the model's name, for the record. checkpoint: a file that is written after every pass and when the run is
    interrupted; a run with the same arguments continues from it, bit for bit.

    Raises ValueError or TypeError for bad images, labels or parameters, a model in training mode or one that does not
    return logits, or a checkpoint of another run. Warns when the gradient is zero everywhere, and when a checkpoint
    cannot be written.
    """
    check_images(images)
    num_outputs = check_classifier(model, images)
    numbers = plain(target_rate=target_rate, overshoot=overshoot, clip=clip) | whole(
        max_passes=max_passes, num_classes=num_classes, max_iterations=max_iterations
    )
    if not 0 < target_rate <= 1 or max_passes < 1 or max_iterations < 3 or num_classes < 2 or not overshoot >= 0:
        raise ValueError(
            "target_rate must lie in (0, 1], max_passes be at least 1, max_iterations at least 3, num_classes at "
            "least 2 and overshoot at least 0, "
            f"not {target_rate}, {max_passes}, {max_iterations}, {num_classes} and {overshoot}"
        )
    images = images.detach()
    parameters = provenance.images_record(images) | numbers
    held_out = (held_out, None) if isinstance(held_out, Tensor) else held_out
    run = _Run(model, images, ball, check_seed(seed), parameters, labels, held_out, source, num_outputs)
    run.resume(checkpoint)
    with tqdm(total=max_passes * len(images), desc="UAP", unit="image", disable=not progress) as bar:
        bar.update(run.passes * len(images) + run.position)
        try:
            while not run.finished():
                run.finish_pass(bar)
                run.save(checkpoint)
                if run.passes == 1 and not (run.moved or run.history[1]["accepted"]):
                    warn_without_gradient(torch.ones(len(images), dtype=torch.bool))
        except KeyboardInterrupt:
            run.save(checkpoint)
            raise
    return run.result()


class _Run:
    """The state of a run: the perturbation, the pass, the position in it, and the history."""

    def __init__(self, model, images, ball, seed, parameters, labels, held_out, source, num_outputs):
        self.model, self.images, self.ball, self.seed, self.parameters = model, images, ball, seed, parameters
        self.clip, self.source, self.source_sha256 = parameters["clip"], source, provenance.weights_sha256(model)
        self.deepfool = LinearStep(
            p=2,
            num_classes=min(parameters["num_classes"], num_outputs),
            overshoot=parameters["overshoot"],
            # A step is kept only if at most this many iterations found it, so DeepFool need not go on.
            max_iterations=parameters["max_iterations"] - 2,
            convention=CONVENTIONS["universal"],
        )
        self.sets = {"crafting": (images, labels)} | ({"held_out": held_out} if held_out else {})
        for data, truth in self.sets.values():
            if truth is not None:
                check_labels(truth, data, num_outputs)
        self.clean = {name: predict(model, data) for name, (data, _) in self.sets.items()}
        # Small steps would be lost in half precision.
        self.delta = torch.zeros_like(images[:1], dtype=torch.promote_types(images.dtype, torch.float32))
        self.passes, self.position, self.accepted, self.seconds, self.moved = 0, 0, 0, 0.0, False
        self.history = [self.measure(0)]

    def measure(self, passes: int) -> dict:
        """The history's entry for the present perturbation, after so many passes."""
        entry = {"pass": passes, "accepted": self.accepted}
        for name, (data, truth) in self.sets.items():
            labels = predict(self.model, data, self.delta, clip=self.clip)
            entry[f"{name}_fooling_rate"] = fooling_rate(self.clean[name], labels).value
            if truth is not None:
                entry[f"{name}_accuracy"] = accuracy(labels, truth).value
        return entry

    def finished(self) -> bool:
        rate = self.history[-1]["crafting_fooling_rate"]
        return self.passes >= self.parameters["max_passes"] or rate >= self.parameters["target_rate"]

    def order(self) -> Tensor:
        """The order of this pass: the next permutation of the seed's generator."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.passes + 1):
            permutation = torch.randperm(len(self.images), generator=generator)
        return permutation

    def finish_pass(self, bar: tqdm) -> None:
        """Visit the images that are left in this pass, then measure."""
        order, started = self.order(), time.perf_counter()
        screen = 1
        try:
            while self.position < len(order):
                block = order[self.position : self.position + screen]
                visited = self.visit(block)
                # As the perturbation gets better, longer stretches of images are fooled already.
                screen = min(2 * screen, _LONGEST_SCREEN) if visited == len(block) else max(1, visited)
                bar.update(visited)
        finally:
            self.seconds += time.perf_counter() - started
        history = [*self.history, self.measure(self.passes + 1)]  # first: an interrupt here loses nothing
        self.passes, self.position, self.accepted, self.history = self.passes + 1, 0, 0, history
        bar.set_postfix(fooling=f"{self.history[-1]['crafting_fooling_rate']:.3f}")

    def visit(self, block: Tensor) -> int:
        """Visit images of `block` in order until one changes the perturbation; return how many were visited.

        Which of them are fooled is asked of the network once for the whole block: the answers hold as long as the
        perturbation stays what it is.
        """
        images = self.images[block]
        perturbed = self.perturbed(images)
        with torch.no_grad():
            fooled = ask(self.model, perturbed).argmax(1) != self.clean["crafting"][block]
        for position in (~fooled).nonzero().flatten().tolist():
            step, _, label, new_label = self.deepfool.attack(self.model, perturbed[position : position + 1], None)
            self.moved = self.moved or bool(step.any())
            if new_label != label and meaningful(step):
                self.advance(position + 1, self.ball.project(self.delta + step), self.accepted + 1)
                return position + 1
        self.advance(len(block), self.delta, self.accepted)
        return len(block)

    def advance(self, visited: int, delta: Tensor, accepted: int) -> None:
        """Change the whole state in one place, so that an interrupt does not find half of it changed."""
        self.delta, self.accepted, self.position = delta, accepted, self.position + visited

    def perturbed(self, images: Tensor) -> Tensor:
        sums = (images + self.delta).to(images)
        return sums.clamp(0, 1) if self.clip else sums

    def result(self, **state) -> UniversalPerturbation:
        device = device_name(self.images.device)
        run = {"seconds": round(self.seconds, 1), "device": device, "commit": provenance.commit()} | state
        return UniversalPerturbation(
            self.delta, self.ball, "uap", self.source, self.source_sha256, self.seed, self.parameters, self.history,
            run=run,
        )  # fmt: skip

    def save(self, checkpoint: str | Path | None) -> None:
        if checkpoint is not None:
            state = {"passes": self.passes, "position": self.position, "accepted": self.accepted}
            save_checkpoint(checkpoint, self.result(**state).save)

    def resume(self, checkpoint: str | Path | None) -> None:
        if checkpoint is None or not Path(checkpoint).exists():
            return
        saved = UniversalPerturbation.load(checkpoint)
        mine, theirs = ((p.identity, p.delta.dtype, p.history[:1]) for p in (self.result(), saved))
        if mine != theirs or "passes" not in saved.run:
            raise ValueError(f"{checkpoint} belongs to a run with other arguments; delete it or name another file")
        self.delta, self.history = saved.delta.to(self.images.device), saved.history
        self.passes, self.position, self.accepted = (saved.run[k] for k in ("passes", "position", "accepted"))
        self.seconds = saved.run["seconds"]
