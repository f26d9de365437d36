"""Checks of what users hand in: clear errors that name the argument, the value and what is allowed."""

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


def check_model(model: nn.Module, images: Tensor) -> None:
    """Raise unless `model` is in evaluation mode, of the device and type of `images`, and takes their channels."""
    if any(module.training for module in model.modules()):
        raise ValueError("model is in training mode, where dropout and batch normalisation vary; call model.eval()")
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device != images.device:
        raise ValueError(f"images are on {images.device}, the model on {parameter.device}; move one of them")
    if parameter is not None and parameter.is_floating_point() and parameter.dtype != images.dtype:
        raise TypeError(f"images are {images.dtype}, the model's parameters {parameter.dtype}; convert one of them")
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is not None and convolution.in_channels != images.shape[1]:
        raise ValueError(f"the model takes {convolution.in_channels} channels, images have {images.shape[1]}")


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
