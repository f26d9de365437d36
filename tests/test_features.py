"""Layers are chosen by what fires, and measured at the moment they fire."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from uaplib import features, models
from uaplib.features import Layer
from uaplib.models import Normalized

PIXELS = torch.tensor([0.0, 0.25, 1.0, 0.75]).view(1, 1, 2, 2)  # 4 x - 2 is -2, -1, 2, 1
IMAGES = torch.full((1, 3, 16, 16), 0.5)


def convolution(weight=4.0, bias=-2.0):
    layer = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


def names(model, images=IMAGES, selection="convolutions"):
    return [layer.name for layer in features.choose(model.eval(), images, selection)]


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


class Unit(nn.Module):
    """A convolution with its normalisation, as in torchvision's Inception networks: the ReLU is a function."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Residual(nn.Module):
    """A residual block whose one ReLU fires twice."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.second(self.relu(self.first(x))))


class Unused(nn.Module):
    """A network with a module that never fires."""

    def __init__(self):
        super().__init__()
        self.conv, self.spare = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("statistic", "expected"), [(torch.sum, [0, 3]), (torch.max, [2, 2]), (torch.min, [-2, 0])])
def test_a_layer_is_measured_when_it_fires_whatever_comes_later(inplace, statistic, expected):
    model = nn.Sequential(convolution(), nn.ReLU(inplace))
    found = features.measure(model, PIXELS, [Layer("0"), Layer("1")], statistic)
    assert found.tolist() == expected
    assert features.measure(model, PIXELS, [Layer("1"), Layer("0")], statistic).tolist() == expected[::-1]


def test_the_whole_batch_is_measured():
    found = features.measure(convolution_only := nn.Sequential(convolution()), PIXELS.repeat(3, 1, 1, 1), [Layer("0")],
                             lambda a: a.abs().sum())  # fmt: skip
    assert found.item() == 18
    assert hooks(convolution_only) == 0


@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_flow_back_to_the_images(inplace):
    model, images = nn.Sequential(convolution(), nn.ReLU(inplace)), PIXELS.clone().requires_grad_()
    features.measure(model, images, [Layer("0")], lambda a: a.square().sum() / 2).sum().backward()
    assert torch.equal(images.grad, 4 * (4 * PIXELS - 2))


def test_a_module_that_fires_several_times_counts_as_several_layers():
    shared = convolution(2.0, 0.0)
    model = nn.Sequential(shared, shared, shared).eval()
    layers = [Layer("0", call) for call in range(3)]
    assert features.choose(model, PIXELS, ["0"]) == layers
    assert features.measure(model, PIXELS, layers, torch.sum).tolist() == [4, 8, 16]
    assert features.measure(model, PIXELS, layers[2:], torch.sum).tolist() == [16]


def test_a_layer_that_does_not_fire_is_named():
    with pytest.raises(ValueError, match=r"Layer\(name='0', call=1\).* did not fire"):
        features.measure(nn.Sequential(convolution()), PIXELS, [Layer("0", 1)], torch.sum)


@pytest.mark.parametrize("call", [
    lambda model, images: features.measure(model, images, [Layer("0")], torch.sum),
    lambda model, images: features.choose(model, images),
    lambda model, images: features.table(model, images),
], ids=["measure", "choose", "table"])  # fmt: skip
def test_no_hook_stays_not_even_when_the_model_fails(call):
    model = nn.Sequential(convolution(), nn.Flatten(), nn.Linear(4, 2)).eval()
    call(model, PIXELS)
    assert hooks(model) == 0
    with pytest.raises(RuntimeError):
        call(model, torch.zeros(1, 1, 3, 3))
    assert hooks(model) == 0


def test_a_hook_that_was_there_stays():
    model, seen = nn.Sequential(convolution()), []
    model[0].register_forward_hook(lambda *arguments: seen.append(1))
    features.measure(model, PIXELS, [Layer("0")], torch.sum)
    assert (hooks(model), len(seen)) == (1, 1)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([], ["0"]),
        ([nn.ReLU], ["1"]),
        ([lambda inplace: nn.BatchNorm2d(2)], ["1"]),
        ([lambda inplace: nn.BatchNorm2d(2), nn.ReLU6], ["2"]),
        ([lambda inplace: nn.GroupNorm(1, 2), nn.SiLU], ["2"]),
        ([nn.ReLU, lambda inplace: nn.BatchNorm2d(2)], ["1"]),
        ([lambda inplace: nn.MaxPool2d(2), nn.ReLU], ["0"]),
    ],
)
def test_a_convolution_counts_after_its_normalisation_and_nonlinearity(after, expected, inplace):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), *(make(inplace) for make in after), nn.Flatten(), nn.LazyLinear(2))
    assert names(model) == expected


def test_a_nonlinearity_that_is_a_function_is_found_in_the_output_of_its_unit():
    model = nn.Sequential(Unit(3, 2), Unit(2, 2), nn.Flatten())
    assert names(model) == ["0", "1"]
    with torch.no_grad():
        assert (features.measure(model, IMAGES, features.choose(model, IMAGES), torch.min) >= 0).all()


@pytest.mark.parametrize("wrap", [lambda *layers: nn.Sequential(*layers),
                                  lambda *layers: nn.Sequential(nn.Sequential(*layers), nn.Flatten())])  # fmt: skip
def test_linear_convolutions_in_a_row_are_all_counted(wrap):
    model = wrap(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    assert [name.split(".")[-1] for name in names(model)] == ["1", "3"]


def test_the_linear_convolution_that_ends_a_bottleneck_counts_as_it_is():
    expand, project = [nn.Conv2d(3, 6, 1), nn.ReLU6()], [nn.Conv2d(6, 3, 1), nn.BatchNorm2d(3)]
    model = nn.Sequential(*expand, *project, nn.Conv2d(3, 2, 1), nn.ReLU())
    assert names(model) == ["1", "3", "5"]


def test_residual_blocks():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Residual(2), nn.Sequential(Residual(2), nn.Flatten()))
    assert names(model, selection="blocks") == ["1", "2.0"]
    assert features.default_kind(model) == "blocks"
    assert features.choose(model, IMAGES, ["1.relu"]) == [Layer("1.relu", 0), Layer("1.relu", 1)]
    assert features.choose(model, IMAGES)[:3] == [Layer("0"), Layer("1.relu", 0), Layer("1.second")]


@pytest.mark.parametrize(
    ("name", "convolutions", "blocks"), [("resnet18", 20, 8), ("squeezenet1_1", 26, 8), ("googlenet", 57, 9)]
)
def test_torchvisions_networks(name, convolutions, blocks):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model, images = torchvision.models.get_model(name, **options), torch.full((1, 3, 64, 64), 0.5)
    assert len(names(model, images)) == convolutions
    assert len(names(model, images, "blocks")) == blocks
    assert features.default_kind(model) == "blocks"


def test_a_network_without_blocks():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
    assert features.default_kind(model) == "convolutions"
    assert names(model) == ["1", "3"]
    with pytest.raises(ValueError, match="no blocks found in Sequential; give a list of module names"):
        features.choose(model, IMAGES, "blocks")


@pytest.mark.parametrize(
    ("name", "kind", "convolutions"),
    [("vgg16-mini", "convolutions", 13), ("vgg19-mini", "convolutions", 16), ("caffenet-mini", "convolutions", 5),
     ("vgg-f-mini", "convolutions", 5), ("googlenet-mini", "blocks", None), ("resnet-mini", "blocks", None)],
)  # fmt: skip
def test_the_mini_networks(name, kind, convolutions):
    model = models.load(name)
    assert features.default_kind(model) == kind
    all_of_them = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert len(features.choose(model, model.mean_image())) == (convolutions or all_of_them)


@pytest.fixture(scope="module")
def lite0():
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    with torch.random.fork_rng():
        network = networks.EfficientNet.from_name("efficientnet-lite0")
    return Normalized(network, [0.498] * 3, [0.502] * 3, 64).eval()


@pytest.mark.parametrize(("selection", "count"), [("convolutions", 49), ("blocks", 16)])
def test_efficientnet_lite0(lite0, selection, count):
    chosen = features.choose(lite0, lite0.mean_image(), selection)
    assert len(set(chosen)) == len(chosen) == count


def test_one_activation_module_of_efficientnet_lite0_is_two_layers(lite0):
    chosen = features.choose(lite0, lite0.mean_image(), ["network._blocks.1._swish"])
    assert chosen == [Layer("network._blocks.1._swish", 0), Layer("network._blocks.1._swish", 1)]
    with torch.no_grad():
        first, second = features.measure(lite0, torch.rand(1, 3, 64, 64), chosen, torch.sum)
    assert first != second
    convolutions = features.choose(lite0, lite0.mean_image())
    assert set(chosen) <= set(convolutions)


def test_given_names_come_in_the_order_in_which_they_fire():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten())
    assert names(model, selection=["2", "0"]) == ["0", "2"]


def test_an_unknown_layer_gets_the_nearest_names():
    model = torchvision.models.squeezenet1_1()
    with pytest.raises(ValueError, match=r"no layer 'features.3.squeez'.*nearest.*'features.3.squeeze'"):
        features.choose(model, IMAGES, ["features.3.squeez"])


def test_a_layer_that_never_fires_is_refused():
    with pytest.raises(ValueError, match=r"modules \['spare'\] never fire"):
        features.choose(Unused().eval(), IMAGES, ["conv", "spare"])


@pytest.mark.parametrize("selection", ["convolutions", "blocks", []])
def test_a_network_without_such_layers_is_refused(selection):
    with pytest.raises(ValueError, match="found in Sequential; give a list of module names instead"):
        features.choose(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)).eval(), IMAGES, selection)


@pytest.mark.parametrize("selection", ["convolution", "conv", ""])
def test_another_kind_is_refused(selection):
    with pytest.raises(ValueError, match=r"layers must be one of \('convolutions', 'blocks'\) or a list"):
        features.choose(Unused().eval(), IMAGES, selection)


def test_the_record_is_text():
    assert features.record([Layer("a.b"), Layer("c", 1)]) == {"layers": ["a.b:0", "c:1"]}


def test_the_table_says_what_fires_and_how_often():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Residual(2), Residual(2)).eval()
    found = features.table(model, IMAGES.repeat(2, 1, 1, 1), ["0", "1", "1.relu"])
    assert found.columns.tolist() == ["module", "kind", "output", "fires", "chosen"]
    rows = {row.module: (row.kind, row.output, row.fires, row.chosen) for row in found.itertuples()}
    assert rows == {
        "0": ("Conv2d", (2, 16, 16), 1, 1),
        "1": ("Residual", (2, 16, 16), 1, 1),
        "1.relu": ("ReLU", (2, 16, 16), 2, 2),
    }
    convolutions = features.table(model, IMAGES).set_index("module")
    assert (convolutions.loc["1.relu", "fires"], convolutions.loc["1.relu", "chosen"]) == (2, 1)


def test_choosing_changes_nothing(model):
    images, before, state = torch.full((1, 1, 12, 12), 0.5).double(), copy.deepcopy(model), torch.get_rng_state()
    features.choose(model, images)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("method", "network", "count"),
    [("fff", "alexnet", 5), ("fff", "vgg16", 15), ("fff", "vgg19", 18), ("fff", "googlenet", 12),
     ("gd-uap", "alexnet", 5), ("gd-uap", "vgg16", 15), ("gd-uap", "vgg19", 21), ("gd-uap", "googlenet", 12),
     ("gd-uap", "resnet152", 51)],
)  # fmt: skip
def test_the_papers_layers_are_in_torchvisions_networks(method, network, count):
    with torch.device("meta"):
        built = torchvision.models.get_model(network, **({"init_weights": False} if network == "googlenet" else {}))
    modules = {f"network.{name}": module for name, module in built.named_modules()}
    names = features.paper_layers(method, network)
    assert len(set(names)) == count
    assert set(names) <= set(modules)
    if network.startswith("vgg"):
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in modules.values())
        assert sum(isinstance(modules[name], torch.nn.ReLU) for name in names if ".features." in name) == convolutions
        assert sum(isinstance(modules[name], torch.nn.MaxPool2d) for name in names) == (2 if method == "fff" else 0)


def test_a_network_that_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="network='vgg13' is unknown. Did you mean .*'vgg16'"):
        features.paper_layers("gd-uap", "vgg13")
    with pytest.raises(ValueError, match="method='uap' is unknown"):
        features.paper_layers("uap", "vgg16")


class Attention(nn.Module):
    """A layer that returns its output and something beside it, as attention and recurrent layers do."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        return {"tuple": (2 * x, x), "list": [2 * x, None], "dict": {"out": x}, "nothing first": (None, x)}[self.kind]


class First(nn.Module):
    def forward(self, outputs):
        return next(o for o in (outputs.values() if isinstance(outputs, dict) else outputs) if o is not None)


@pytest.mark.parametrize("kind", ["tuple", "list"])
def test_of_a_layer_that_returns_several_tensors_the_first_is_measured(kind):
    model = nn.Sequential(Attention(kind), First()).eval()
    assert features.choose(model, PIXELS, ["0"]) == [Layer("0")]
    assert features.measure(model, PIXELS, [Layer("0")], torch.sum).tolist() == [2 * PIXELS.sum()]


@pytest.mark.parametrize("kind", ["dict", "nothing first"])
def test_a_layer_without_a_tensor_is_named(kind):
    model = nn.Sequential(Attention(kind), First()).eval()
    with pytest.raises(ValueError, match="layer '0' returns a (dict|tuple), not a tensor; name one of its parts"):
        features.measure(model, PIXELS, [Layer("0")], torch.sum)


@pytest.mark.parametrize("call", [features.choose, features.table], ids=["choose", "table"])
def test_a_model_in_training_mode_is_refused_before_its_running_statistics_change(call):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    before = model[1].running_mean.clone()
    with pytest.raises(ValueError, match="model is in training mode"):
        call(model, IMAGES)
    assert torch.equal(model[1].running_mean, before)
