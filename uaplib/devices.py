"""Choosing and naming the device."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def best_device() -> torch.device:
    """Return the first of CUDA, MPS and CPU that is available."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_of(model: nn.Module) -> torch.device:
    """Return where a network's parameters and buffers are, that is the CPU for a network without any."""
    tensors = (value for value in model.state_dict().values() if isinstance(value, Tensor))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of this name, for instance "cuda" or "cuda:1"; for "auto", `best_device`.

    Raises ValueError for an unknown device, and for one that is not there.
    """
    if str(name) == "auto":
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend has words of its own
        why, *_ = str(error).splitlines()
        raise ValueError(f"device={name!r} cannot be used here: {why}") from error
    return device


def device_name(device: torch.device | str = "cpu") -> str:
    """Return the name of an accelerator, or the processor's type, instruction set and number of threads."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type}, {platform.machine()}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


@contextmanager
def whole_precision() -> Iterator[None]:
    """Inside, a GPU computes convolutions in the precision of their numbers, as a CPU does.

    PyTorch's default there is TF32, single precision with 10 of 23 bits after the point, in which a few answers of
    10,000 are others. Autocast stays what it is.
    """
    cudnn = torch.backends.cudnn
    owner, name, exact = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    was = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, was)
