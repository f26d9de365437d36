"""Layer activations, reduced to one number each inside a forward hook.

The number is taken at the moment a layer fires, never from a stored tensor: an in-place ReLU that comes later would
change what was stored. A module that fires several times in one pass counts as several layers.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from uaplib.checks import check_mode
from uaplib.models.normalized import Normalized
from uaplib.names import check_name

if TYPE_CHECKING:
    import pandas as pd

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
NONLINEARITIES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Mish,
                  nn.Hardswish, nn.Hardtanh, nn.Softplus, nn.Sigmoid, nn.Tanh)  # fmt: skip
KINDS = ("convolutions", "blocks")
Selection = str | Sequence[str]


_VGG16 = [f"features.{i}" for i in (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)]
_VGG19 = [f"features.{i}" for i in (1, 3, 6, 8, 11, 13, 15, 17, 20, 22, 24, 26, 29, 31, 33, 35)]
_ALEXNET = [f"features.{i}" for i in (1, 4, 7, 9, 11)]
_INCEPTIONS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_GOOGLENET = ["conv1", "conv2", "conv3", *(f"inception{block}" for block in _INCEPTIONS)]
_RESNET152 = ["conv1", *(f"layer{i + 1}.{k}" for i, blocks in enumerate((3, 8, 36, 3)) for k in range(blocks))]
# What the authors' programs name, on torchvision's networks; AlexNet stands in for CaffeNet. Some of it looks
# unintended, and is theirs all the same: the two poolings of Fast Feature Fool, the dropouts of GD-UAP.
PAPER_LAYERS = {
    "fff": {
        "alexnet": _ALEXNET,
        "vgg16": [*_VGG16, "features.16", "features.23"],
        "vgg19": [*_VGG19, "features.18", "features.27"],
        "googlenet": _GOOGLENET,
    },
    "gd-uap": {
        "alexnet": _ALEXNET,
        "vgg16": [*_VGG16, "classifier.2", "classifier.5"],
        "vgg19": [*_VGG19, *(f"classifier.{i}" for i in (1, 2, 4, 5, 6))],
        "googlenet": _GOOGLENET,
        "resnet152": _RESNET152,
    },
}


class Layer(NamedTuple):
    """The `call`-th time (from 0) that the module of this name fires in one forward pass."""

    name: str
    call: int = 0


class _Firing(NamedTuple):
    layer: Layer
    module: nn.Module
    inputs: tuple
    output: object


def measure(model: nn.Module, images: Tensor, layers: Sequence[Layer], statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Run the model on `images` and return `statistic` of each layer's output, of shape (len(layers),).

    `statistic` maps a tensor of any shape to a scalar; gradients flow back to the images. Of a layer that returns
    several tensors, the first counts. The hooks are removed whatever happens. Raises ValueError when a layer does not
    fire, or returns something else than tensors.
    """
    return observe(model, images, layers, statistic)[0]


def observe(
    model: nn.Module, images: Tensor, layers: Sequence[Layer], statistic: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Do as `measure`, and return what the model says of the images as well.

    `statistic` may also map to tensors of one shape for all layers, for instance to a number for each image.
    """
    wanted, calls, found = set(layers), Counter(), {}

    def reduce(name: str, output: object) -> None:
        layer = Layer(name, calls[name])
        calls[name] += 1
        if layer in wanted:
            output = _tensor(name, output)
            # The copy is for the backward pass: an in-place ReLU may overwrite the output itself.
            found[layer] = statistic(output.clone() if output.requires_grad else output)

    names = dict.fromkeys(layer.name for layer in layers)
    modules = _modules(model, list(names))
    handles = [modules[name].register_forward_hook(lambda _, __, out, name=name: reduce(name, out)) for name in names]
    try:
        said = model(images.clone())  # a network may work in place
    finally:
        for handle in handles:
            handle.remove()
    if silent := [layer for layer in layers if layer not in found]:
        raise ValueError(f"layers {silent} did not fire; choose them with images of the same kind")
    return torch.stack([found[layer] for layer in layers]), said


def _modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """All modules by name. Raises ValueError where one of `names` is not among them."""
    modules = dict(model.named_modules())
    if any(name not in modules for name in names):
        _check_names(model, names)
    return modules


class _Fired(Exception):
    """A layer has fired, and the rest of the network need not run."""


def activation(model: nn.Module, images: Tensor, layer: Layer) -> Tensor:
    """Run the model on `images` until the layer fires and return its output, (N, ...), connected for gradients.

    Raises ValueError when it does not fire, or returns something else than tensors.
    """
    found, calls = [], Counter()

    def stop(module: nn.Module, inputs: tuple, output: object) -> None:
        if calls[layer.name] == layer.call:
            found.append(_tensor(layer.name, output))
            raise _Fired
        calls[layer.name] += 1

    handle = _modules(model, [layer.name])[layer.name].register_forward_hook(stop)
    try:
        model(images.clone())
    except _Fired:
        return found[0]
    finally:
        handle.remove()
    raise ValueError(f"layer {layer} did not fire; choose it with images of the same kind")


def _tensor(name: str, output: object) -> Tensor:
    """The output of a layer: its first tensor where it returns several, as attention and recurrent layers do."""
    parts = output if isinstance(output, tuple | list) else [output]
    if not (parts and isinstance(parts[0], Tensor)):
        raise ValueError(f"layer {name!r} returns a {type(output).__name__}, not a tensor; name one of its parts")
    return parts[0]


def choose(model: nn.Module, images: Tensor, selection: Selection = "convolutions") -> list[Layer]:
    """Return the layers of `model` that `selection` means, in the order in which they fire.

    "convolutions": the output of every convolution, after its batch normalisation and nonlinearity where it has
    them; linear convolutions, such as the last of an inverted residual block, count as they are. "blocks": the
    outputs of the repeated building blocks (residual blocks, inception modules). A sequence of module names: every
    firing of each. One forward pass on `images` (N, C, H, W) in [0, 1] shows what fires when.

    Raises ValueError for a name that does not exist (nearest names given), one that never fires, a selection
    without any layer, or a model in training mode.
    """
    if isinstance(selection, str) and selection not in KINDS:
        raise ValueError(f"layers must be one of {KINDS} or a list of module names, not {selection!r}")
    if not isinstance(selection, str):
        _check_names(model, selection)
    firings = _trace(model, images)
    if selection == "convolutions":
        chosen = _convolutions(model, firings)
    elif selection == "blocks":
        names = _block_names(model)
        chosen = [firing.layer for firing in firings if firing.layer.name in names]
    else:
        chosen = [firing.layer for firing in firings if firing.layer.name in set(selection)]
        if silent := set(selection) - {layer.name for layer in chosen}:
            raise ValueError(f"modules {sorted(silent)} never fire in a forward pass")
    if not chosen:
        raise ValueError(f"no {selection} found in {type(model).__name__}; give a list of module names instead")
    return chosen


def paper_layers(method: str, network: str) -> list[str]:
    """Return the modules that the authors of "fff" or "gd-uap" watch in a network of torchvision.

    The names are those inside a `Normalized` model, for the argument `layers` of the attacks. Raises ValueError for
    another method or a network that the paper does not have.
    """
    networks = PAPER_LAYERS[check_name("method", method, PAPER_LAYERS)]
    return [f"network.{name}" for name in networks[check_name("network", network, networks)]]


def default_kind(model: nn.Module) -> str:
    """Return "blocks" for a network that is built of repeated blocks, otherwise "convolutions"."""
    return "blocks" if _block_names(model) else "convolutions"


def record(layers: Sequence[Layer]) -> dict:
    """Return the layers as a JSON-safe entry of a perturbation's parameters."""
    return {"layers": [f"{layer.name}:{layer.call}" for layer in layers]}


def table(model: nn.Module, images: Tensor, selection: Selection = "convolutions") -> "pd.DataFrame":
    """Return one row per chosen module: its name, kind, the shape of its output, and how often it fires a pass."""
    import pandas as pd  # slow to import, and attacks draw no table

    chosen = Counter(layer.name for layer in choose(model, images, selection))
    trace = _trace(model, images)
    firings = {firing.layer.name: firing for firing in reversed(trace)}
    fires = Counter(firing.layer.name for firing in trace)
    rows = [
        (name, type(firings[name].module).__name__, tuple(firings[name].output.shape[1:]), fires[name], count)
        for name, count in chosen.items()
    ]
    return pd.DataFrame(rows, columns=["module", "kind", "output", "fires", "chosen"])


@torch.no_grad()
def _trace(model: nn.Module, images: Tensor) -> list[_Firing]:
    """Every call of every module in one pass, in the order in which they return."""
    check_mode(model)
    calls, firings = Counter(), []

    def note(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        firings.append(_Firing(Layer(name, calls[name]), module, inputs, output))
        calls[name] += 1

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, module, inputs, output))
        for name, module in model.named_modules()
    ]
    try:
        model(images[:1].clone())
    finally:
        for handle in handles:
            handle.remove()
    return firings


def _convolutions(model: nn.Module, firings: list[_Firing]) -> list[Layer]:
    """Follow each convolution's output tensor through normalisation and nonlinearity."""
    order = {firing.layer: position for position, firing in enumerate(firings)}

    def consumer(firing: _Firing, kinds: tuple) -> _Firing | None:
        """The next module that takes the output, if it is of one of these kinds."""
        later = (f for f in firings[order[firing.layer] + 1 :] if not list(f.module.children()))
        taker = next((f for f in later if f.inputs and f.inputs[0] is firing.output), None)
        return taker if taker and isinstance(taker.module, kinds) else None

    ends = []
    for firing in firings:
        if isinstance(firing.module, CONVOLUTIONS):
            end = consumer(firing, NORMALISATIONS) or firing
            end = consumer(end, NONLINEARITIES) or _unit(model, firings, end) or end
            ends.append(end.layer)
    return sorted(dict.fromkeys(ends), key=order.get)


def _unit(model: nn.Module, firings: list[_Firing], end: _Firing) -> _Firing | None:
    """The call of the module around a convolution and its normalisation, if it holds nothing else.

    Such modules apply their nonlinearity as a function, which no hook sees.
    """
    parent = end.layer.name.rpartition(".")[0]
    children = list(model.get_submodule(parent).children())
    only = all(isinstance(child, CONVOLUTIONS + NORMALISATIONS) for child in children)
    if not parent or not only or sum(isinstance(child, CONVOLUTIONS) for child in children) != 1:
        return None
    return next((f for f in firings if f.layer == Layer(parent, end.layer.call)), None)


def _block_names(model: nn.Module) -> set[str]:
    """The outermost modules that hold two or more convolutions and whose class occurs at least twice."""
    candidates = {
        name: type(module)
        for name, module in model.named_modules()
        if not isinstance(module, nn.Sequential | nn.ModuleList | Normalized)  # the latter in an ensemble
        and sum(isinstance(child, CONVOLUTIONS) for child in module.modules()) >= 2
    }
    occurrences = Counter(candidates.values())
    repeated = {name for name, kind in candidates.items() if occurrences[kind] >= 2}
    return {name for name in repeated if not any(name.startswith(f"{other}.") for other in repeated)}


def _check_names(model: nn.Module, names: Sequence[str]) -> None:
    known = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            raise ValueError(f"the model has no layer {name!r}; the nearest names are {near}")
