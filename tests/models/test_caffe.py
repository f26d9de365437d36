"""Caffe's layers by hand, its files, and what the two networks are made of."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.models.test_originals import load
from uaplib import features
from uaplib.models import caffe, originals

BOTH = pytest.mark.parametrize("name", ["googlenet-caffe", "squeezenet1_1-caffe"])


def test_pooling_rounds_up_and_the_last_window_sticks_out():
    image = torch.arange(36.0).view(1, 1, 6, 6)  # windows begin at 0, 2 and 4; the last holds two rows and columns
    assert caffe.Pool()(image)[0, 0].tolist() == [[14, 16, 17], [26, 28, 29], [32, 34, 35]]
    assert caffe.Pool()(torch.zeros(1, 1, 112, 113)).shape == (1, 1, 56, 56)  # 55.5 and 56 windows


def test_response_normalisation_divides_by_the_mean_square_of_five_channels():
    image = torch.tensor([100.0, 200, 300, 400, 500, 600]).view(1, 6, 1, 1)
    # 1 + alpha / 5 times the sum of squares of this channel and two on each side
    sums = [14e4, 30e4, 55e4, 90e4, 86e4, 77e4]
    expected = [100 * (n + 1) / (1 + 1e-4 / 5 * each) ** 0.75 for n, each in enumerate(sums)]
    assert caffe.GoogLeNet().norm(image).flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_response_normalisation_is_pytorchs_with_the_same_gradient():
    for channels in (1, 2, 7):
        images = torch.randn(2, channels, 3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0)) * 100
        images.requires_grad_()
        found, expected = caffe.ResponseNorm()(images), torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(images)
        assert torch.allclose(found, expected, rtol=1e-12, atol=0)
        upstream = images.detach().cos()
        gradients = [torch.autograd.grad(y, images, upstream)[0] for y in (found, expected)]
        assert torch.allclose(*gradients, rtol=1e-10, atol=1e-12)
        assert torch.autograd.gradcheck(caffe.ResponseNorm(), images, check_forward_ad=True)


def test_filters_are_in_the_order_output_height_width_input(tmp_path):
    path = tmp_path / "f.bin"
    np.arange(2 * 3 * 4 * 5, dtype="<f4").tofile(path)
    found = caffe.filters(path, (2, 5, 3, 4))
    assert found.shape == (2, 5, 3, 4)
    assert found[1, 4, 2, 3] == 119
    assert found[0, 1, 0, 0] == 1
    assert found[0, 0, 0, 1] == 5
    assert found[0, 0, 1, 0] == 20
    assert caffe.filters(path, (2, 60))[1, 0] == 60


@pytest.mark.parametrize("size", [0, 3, 39, 44, 400])
def test_a_file_with_another_number_of_numbers_is_refused(tmp_path, size):
    path = tmp_path / "layer_bias.bin"
    path.write_bytes(b"\0" * size)
    with pytest.raises(ValueError, match=rf"layer_bias\.bin has {size} bytes, and the layer's numbers, .10,., need 40"):
        caffe.numbers(path, (10,))


@BOTH
@torch.no_grad()
def test_the_first_layer_sees_what_caffe_shows_it(name):
    """Blue, green, red, from 0 to 255, less the mean, through the filters as they are in the file."""
    model = load(name)
    layer, folder = model.network.conv1[0], {"g": "bvlc_googlenet", "s": "squeezenet"}[name[0]]
    file = {"g": "conv1/7x7_s2", "s": "conv1"}[name[0]]
    (weight,) = originals.find(f"{folder}/weights/{file}_filter.bin")
    images = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    shown = 255 * images[:, [2, 1, 0]] - torch.tensor([104.0, 117, 123]).view(1, 3, 1, 1)
    expected = F.conv2d(shown, caffe.filters(weight, layer.weight.shape), layer.bias, layer.stride, layer.padding)
    assert torch.allclose(layer((images - model.mean) / model.std), expected, atol=1e-2)  # of some hundreds


@BOTH
def test_every_number_of_the_files_is_used(name):
    model = load(name)
    folder = {"g": "bvlc_googlenet", "s": "squeezenet"}[name[0]]
    places = [place for place in originals.registry() if place.startswith(folder)]
    sizes = [path.stat().st_size // 4 for path in originals.find(*places)]
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(sizes)


def test_blocks_are_inception_modules_and_the_papers_layers_exist():
    model = load("googlenet-caffe")
    image = torch.zeros(1, 3, 96, 96)
    names = [layer.name for layer in features.choose(model, image, "blocks")]
    assert names == [f"network.inception{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert features.default_kind(model) == "blocks"
    assert len(features.choose(model, image, "convolutions")) == 57
    for method in ("fff", "gd-uap"):
        named = features.paper_layers(method, "googlenet")
        assert [layer.name for layer in features.choose(model, image, named)] == named


def test_blocks_are_fire_modules():
    model = load("squeezenet1_1-caffe")
    image = torch.zeros(1, 3, 96, 96)
    names = [layer.name for layer in features.choose(model, image, "blocks")]
    assert names == [f"network.fire{number}" for number in range(2, 10)]
    assert len(features.choose(model, image, "convolutions")) == 26


@BOTH
def test_convolutions_are_watched_after_their_relu(name):
    model = load(name)
    layers = features.choose(model, torch.zeros(1, 3, 96, 96), "convolutions")
    least = features.measure(model, torch.rand(1, 3, 96, 96), layers, torch.min)
    assert (least >= 0).all()
