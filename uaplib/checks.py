"""Checks of what users hand in: clear errors that name the argument, the value and what is allowed."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

RANGE_TOLERANCE = 1e-5  # an image read, scaled and written back may leave [0, 1] by a rounding error


def check_tensor(argument: str, images: Tensor) -> None:
    """Raise unless `images` is a non-empty finite floating-point tensor (N, C, H, W)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{argument} must be a torch tensor, not {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(f"{argument} must have four dimensions (N, C, H, W), not shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"{argument} must be floating point in [0, 1], not {images.dtype}; divide 8-bit images by 255")
    if images.numel() == 0:
        raise ValueError(f"{argument} is empty: shape {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError(f"{argument} contains NaN or infinity")


def check_images(images: Tensor, argument: str = "images") -> None:
    """Raise unless `images` is a non-empty finite float tensor (N, C, H, W) with values in [0, 1]."""
    check_tensor(argument, images)
    low, high = images.aminmax()
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise ValueError(
            f"{argument} must lie in [0, 1], not [{low:g}, {high:g}]. "
            "Divide 8-bit values by 255; normalisation belongs inside the model (uaplib.models.Normalized)."
        )


def check_mode(model: nn.Module) -> None:
    """Raise unless every part of `model` is in evaluation mode."""
    if any(module.training for module in model.modules()):
        raise ValueError("model is in training mode, where dropout and batch normalisation vary; call model.eval()")


def check_model(model: nn.Module, images: Tensor) -> Tensor:
    """Ask `model` about the first of the images and return what it says: logits (1, K), or a map (1, K, H, W).

    Raises ValueError or TypeError for a model in training mode, one that cannot take such images, and an answer that
    is none (see `ask`), each with what to do about it.
    """
    check_mode(model)
    with torch.no_grad():
        return ask(model, images[:1])


def check_classifier(model: nn.Module, images: Tensor) -> int:
    """Do as `check_model` for an attack that follows the gradients of logits, and return the number of classes.

    Warns when the network returns probabilities. Raises RuntimeError inside `torch.inference_mode`.
    """
    check_gradients(model, images)
    logits = check_model(model, images)
    num_classes = classes(logits)
    if logits.min() >= 0 and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), rtol=0, atol=1e-3):
        warnings.warn(
            "the model returns probabilities: where a softmax is sure of itself, its gradient vanishes. "
            "Attack the logits: leave the softmax out.",
            stacklevel=3,
        )
    return num_classes


def classes(logits: Tensor) -> int:
    """Return the number of classes. Raises ValueError for a map."""
    if logits.ndim != 2:
        raise ValueError(f"the model must be a classifier, with logits (N, K), not a map {tuple(logits.shape)}")
    return logits.shape[1]


def check_gradients(model: nn.Module, images: Tensor) -> None:
    """Raise where no gradient leads from what the model says back to the images."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients, which torch.inference_mode() rules out; leave that block")
    check_mode(model)
    with torch.enable_grad():
        if not ask(model, images[:1].detach().requires_grad_()).requires_grad:
            raise ValueError(
                "no gradient leads from the model's output to its images: no_grad() or detach() inside it?"
            )


def check_finite_gradient(gradient: Tensor) -> None:
    """Raise FloatingPointError for a gradient (N, ...) that is not finite everywhere."""
    if not torch.isfinite(gradient).all():
        bad = int((~torch.isfinite(gradient)).flatten(1).any(1).sum())
        raise FloatingPointError(f"the gradient is NaN or infinite for {bad} of {len(gradient)} images")


class NoAnswer(ValueError):
    """What a network returned says nothing about its images."""


def ask(model: nn.Module, images: Tensor) -> Tensor:
    """Return what the network says of images (N, C, H, W): logits (N, K), K > 1, or a map (N, K, H, W).

    The network gets a copy, for some work in place. Raises ValueError when it returns anything else, or numbers that
    are not finite, and ValueError or TypeError, saying why as far as that can be told, when it fails.
    """
    try:
        output = model(images.clone())
        _check_answer(output, images)
    except (NoAnswer, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # what a network raises is its own affair
        raise _refusal(model, images, error) from error
    return output


def _check_answer(output: object, images: Tensor) -> None:
    if not isinstance(output, Tensor):
        raise NoAnswer(f"the model returns {_kind(output)}, not a tensor of logits; wrap it: {_wrapper(output)}")
    shape = tuple(output.shape)
    if not output.is_floating_point() or output.ndim not in (2, 4) or len(output) != len(images):
        raise NoAnswer(
            f"the model returns {output.dtype} of shape {shape} for {len(images)} images; it must return "
            "floating-point logits (N, K), or a map (N, K, H, W)"
        )
    if output.ndim == 2 and output.shape[1] < 2:
        raise NoAnswer(
            f"the model returns logits of shape {shape}, so that every image has class 0; "
            "return one logit per class: torch.cat([-x, x], dim=1) for a yes-or-no network"
        )
    if not torch.isfinite(output).all():
        bad = int((~torch.isfinite(output)).flatten(1).any(1).sum())
        raise NoAnswer(f"the model returns NaN or infinity for {bad} of {len(images)} images; is a weight damaged?")


def _kind(output: object) -> str:
    keys = f" with the keys {list(output)}" if isinstance(output, Mapping) else ""
    return f"a {type(output).__name__}{keys}"


def _wrapper(output: object) -> str:
    part = repr(next(iter(output), 0)) if isinstance(output, Mapping) else 0
    return f"a module whose forward returns network(x)[{part}]"


def _refusal(model: nn.Module, images: Tensor, error: Exception) -> Exception:
    """The error that says why a network has failed on the images, as far as the two can tell."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    device = next((p.device for p in parameters if p.device != images.device), None)
    if device is not None:
        return ValueError(f"images are on {images.device}, the model on {device}; move one of them ({_line(error)})")
    kind = next((p.dtype for p in parameters if p.is_floating_point() and p.dtype != images.dtype), None)
    if kind is not None:
        return TypeError(
            f"images are {images.dtype}, the model's parameters {kind}; convert one of them ({_line(error)})"
        )
    return ValueError(f"the model cannot take images of shape {tuple(images[:1].shape)}: {_line(error)}")


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def warn_without_gradient(zero: Tensor) -> None:
    """Warn when the gradient is exactly zero for all images; `zero` says so for each, booleans (N,)."""
    if zero.all():
        warnings.warn(
            f"the gradient is exactly zero for all of {len(zero)} images: the attack finds nothing, which says nothing "
            "about the network's robustness. Look for rounding, thresholds or a saturated output inside it.",
            stacklevel=3,
        )


def plain(**numbers: Any) -> dict[str, Any]:
    """Return the arguments with numpy's and PyTorch's numbers as Python's, which JSON can write.

    Raises TypeError that names an argument which is no number, text, truth value or None.
    """
    found = {}
    for name, value in numbers.items():
        value = value.item() if isinstance(value, np.generic | Tensor | np.ndarray) and value.ndim == 0 else value
        if not isinstance(value, int | float | str | None):
            raise TypeError(f"{name} must be a number, a text, True, False or None, not {value!r}")
        found[name] = value
    return found


def whole(**numbers: Any) -> dict[str, int]:
    """Do as `plain`, and raise TypeError for an argument that is no whole number."""
    found = plain(**numbers)
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
    return found


def real(**numbers: Any) -> dict[str, float]:
    """Do as `plain`, as floating-point numbers, and raise TypeError for an argument that is none."""
    found = plain(**numbers)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, not {value!r}")
    return {name: float(value) for name, value in found.items()}


def finite(**numbers: Any) -> dict[str, float]:
    """Do as `real`, and raise ValueError for an argument that is infinite or not a number."""
    found = real(**numbers)
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
    return found


def true_or_false(**values: Any) -> dict[str, bool]:
    """Do as `plain`, and raise TypeError for an argument that is not True or False."""
    found = plain(**values)
    for name, value in found.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    return found


_KINDS = {bool: true_or_false, int: whole, float: real}


def check_fields(settings: Any, at_least_1: Sequence[str] = ()) -> None:
    """Check the numbers and truth values of a frozen dataclass by the types of its fields, and make them Python's own.

    None passes where a field's type says so. Raises TypeError that names the field, and ValueError for a number that is
    not finite, or below 1 where the name is in `at_least_1`.
    """
    for each in fields(settings):
        kinds, value = get_args(each.type) or (each.type,), getattr(settings, each.name)
        check = next((_KINDS[kind] for kind in kinds if kind in _KINDS), None)
        if check is None or (value is None and type(None) in kinds):
            continue
        value = check(**{each.name: value})[each.name]
        if not math.isfinite(value):
            raise ValueError(f"{each.name} must be a finite number, not {value}")
        object.__setattr__(settings, each.name, value)
        if each.name in at_least_1 and value < 1:
            raise ValueError(f"{each.name} must be a whole number of at least 1, not {value}")


def check_seed(seed: Any) -> int:
    """Return the seed as Python's number. Raises TypeError or ValueError unless it is whole, in 0 ... 2**64 - 1."""
    found = whole(seed=seed)["seed"]
    if not 0 <= found < 2**64:
        raise ValueError(f"seed must lie in 0 ... 2**64 - 1, not {found}")
    return found


def check_labels(labels: Tensor, images: Tensor, num_classes: int, argument: str = "labels") -> None:
    """Raise unless `labels` holds one int64 class in 0 ... num_classes - 1 per image, on the images' device."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{argument} must be a torch tensor, not {type(labels).__name__}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"{argument} must hold one int64 class per image, shape ({len(images)},); got {labels.dtype} "
            f"of shape {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"images are on {images.device}, {argument} on {labels.device}; move one of them")
    low, high = labels.aminmax()
    if low < 0 or high >= num_classes:
        raise ValueError(f"{argument} must lie in 0 ... {num_classes - 1}, found {low} ... {high}")
