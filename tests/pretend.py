"""A second device where there is only one: its tensors lie on the CPU and say that they lie on "cuda:7".

A real device refuses to compute with tensors of two devices, and so does this one: what an attack makes in the wrong
place, or leaves there, ends its run.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE, CPU = torch.device("cuda:7"), torch.device("cpu")
_MOVES = (Tensor.to, Tensor.cpu)
_CROSSING = (Tensor.copy_,)  # they cross the border on a real device, too


class There(Tensor):
    """A tensor on the pretended device."""

    @property
    def device(self):
        return DEVICE

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, dict(kwargs or {}))


class PretendDevice(TorchFunctionMode):
    """Inside, tensors can be made on `DEVICE`, and moved there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, dict(kwargs or {}))


def place(tensor):
    """The tensor on the pretended device."""
    return tensor.detach().clone().as_subclass(There)


def place_model(model):
    """The model with parameters and buffers on the pretended device, in place."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: place(tensor) for name, tensor in tensors.items() if tensor is not None})
    return model


def _compute(func, args, kwargs):
    asked = kwargs.pop("device", None)
    if func in _MOVES:
        return _move(func, args, kwargs, asked)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    if func is Tensor.__getitem__:  # indices on the CPU may pick from a tensor on a device
        tensors = tensors[:1]
    there = any(isinstance(t, There) for t in tensors)
    if there and func not in _CROSSING and not all(isinstance(t, There) or t.ndim == 0 for t in tensors):
        raise RuntimeError(f"{getattr(func, '__name__', func)}: tensors on {DEVICE} and on the CPU")
    if asked is not None:
        there = torch.device(asked) == DEVICE
        kwargs["device"] = CPU
    with torch._C.DisableTorchFunction():
        result = func(*args, **kwargs)
    return _mark(result, there)


def _move(func, args, kwargs, asked):
    tensor, *others = args
    target = CPU if func is Tensor.cpu else asked
    for other in others:
        if isinstance(other, Tensor):
            target = DEVICE if isinstance(other, There) else CPU
        elif isinstance(other, str | torch.device):
            target = other
    types = [other if isinstance(other, torch.dtype) else other.dtype for other in [*others, *kwargs.values()]
             if isinstance(other, torch.dtype | Tensor)]  # fmt: skip
    there = isinstance(tensor, There) if target is None else torch.device(target) == DEVICE
    with torch._C.DisableTorchFunction():
        moved = tensor.to(types[0]) if types else tensor
        if there == isinstance(tensor, There):
            return _mark(moved, there)
        return _mark(moved.clone().as_subclass(Tensor), there)


def _mark(result, there):
    def mark(value):
        if not isinstance(value, Tensor) or isinstance(value, There) == there:
            return value
        return value.as_subclass(There if there else Tensor)

    with torch._C.DisableTorchFunction():
        return tree_map(mark, result)
