"""Darknet's file, and the order of its classes."""

import numpy as np
import pytest
import torch

from tests.models.test_originals import load
from uaplib import features
from uaplib.models import darknet

NUMBERS = 1_046_488


@pytest.fixture
def numbers(tmp_path):
    """A file of the right size in which each number says where it stands."""
    path = tmp_path / "tiny.weights"
    path.write_bytes(b"\0" * 16 + np.arange(NUMBERS, dtype="<f4").tobytes())
    return path


def test_a_layer_is_bias_scale_mean_variance_and_filters(numbers):
    network = darknet.TinyDarknet()
    darknet.read(network, numbers)
    (convolution, norm, relu), pooling, *_ = network.features
    assert (norm.bias[0], norm.weight[0], norm.running_mean[0], norm.running_var[0]) == (0, 16, 32, 48)
    assert convolution.weight.flatten()[:28].tolist() == [*range(64, 92)]  # output, input, height, width
    assert convolution.weight[1, 2, 1, 0] == 64 + 27 + 18 + 3
    assert (norm.eps, relu.negative_slope, convolution.padding) == (1e-6, 0.1, (1, 1))
    assert network.classifier.weight[-1, -1] == NUMBERS - 1
    assert network.classifier.bias[0] == NUMBERS - 128 * 1000 - 1000


@pytest.mark.parametrize("change", [-8, -1, 3, 4])
def test_a_file_of_another_size_is_refused(numbers, change):
    content = numbers.read_bytes()
    numbers.write_bytes(content[:change] if change < 0 else content + b"\0" * change)
    with pytest.raises(
        ValueError, match=r"tiny\.weights has 4,185,9.. bytes, and the numbers of Tiny Darknet need 4,185,968"
    ):
        darknet.read(darknet.TinyDarknet(), numbers)


def test_classes_are_put_into_the_order_of_their_names(tmp_path):
    path = tmp_path / "classes"
    path.write_text("\n".join(f"n{(7 * number) % 1000:08}" for number in range(1000)) + "\nn00000000\n")
    order = darknet._sorted_order(path)
    assert order[:3] == [0, 143, 286]  # 7 * 143 is 1 modulo 1,000
    assert sorted(order) == list(range(1000))


def test_it_is_plain_and_watched_after_its_leaky_relus():
    model = load("tiny-darknet")
    image = torch.zeros(1, 3, 64, 64)
    assert features.default_kind(model) == "convolutions"
    names = [layer.name for layer in features.choose(model, image, "convolutions")]
    assert len(names) == 16
    assert all(name.endswith(".2") for name in names[:-1])
    assert names[-1] == "network.classifier"
