import json

import pytest
import torch

from uaplib import models
from uaplib.data import fashion_mnist
from uaplib.models import registry
from uaplib.train import train


@pytest.fixture
def few_images(monkeypatch, tmp_path, clothes):
    """A few hundred images, and weights written to a temporary folder, which is returned."""
    few = fashion_mnist.Images(clothes.images[:256], clothes.labels[:256])
    monkeypatch.setattr(fashion_mnist, "load", lambda split: few)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


def run(name="vgg-f-mini", **arguments):
    card = train(name, epochs=1, progress=False, **arguments)
    return card, models.weights_file(name).read_bytes()


@pytest.mark.parametrize("name", ["vgg-f-mini", "resnet-mini"])
def test_the_same_seed_gives_the_same_bytes(few_images, name):
    torch.manual_seed(1)
    first = run(name)[1]
    torch.manual_seed(2)
    assert run(name)[1] == first


def test_another_seed_gives_other_weights(few_images):
    assert run(seed=0)[1] != run(seed=1)[1]


def test_the_random_state_and_the_threads_stay(few_images):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_they_stay_when_training_is_interrupted(few_images, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("uaplib.train._fit", interrupted)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run(threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert list(few_images.iterdir()) == []


def test_the_card_is_written_beside_the_weights(few_images):
    card, _ = run()
    assert sorted(p.name for p in few_images.iterdir()) == ["vgg-f-mini.json", "vgg-f-mini.safetensors"]
    assert models.card("vgg-f-mini") == card == json.loads((few_images / "vgg-f-mini.json").read_text())
    assert card["command"] == "uaplib train vgg-f-mini --seed 0 --epochs 1 --threads 1"
    assert card["test_images"] == 256


def test_the_weights_load_and_are_as_accurate_as_the_card_says(few_images):
    card, _ = run("resnet-mini")
    model = models.load("resnet-mini")
    few = fashion_mnist.load("test")
    found = (model(few.images).argmax(1) == few.labels).double().mean().item()
    assert found == pytest.approx(card["test_accuracy"], abs=0.005)


def test_a_run_learns(few_images):
    assert train("resnet-mini", epochs=12, progress=False)["test_accuracy"] > 0.5


def test_the_weights_are_contiguous_and_of_one_network(few_images):
    run()
    shapes = {key: value.shape for key, value in registry.build("vgg-f-mini").network.state_dict().items()}
    assert {k: v.shape for k, v in models.load("vgg-f-mini").network.state_dict().items()} == shapes


def test_an_unknown_name_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(fashion_mnist, "load", lambda split: pytest.fail("data was loaded"))
    with pytest.raises(ValueError, match="name='resnet' is unknown. Did you mean 'resnet-mini'"):
        train("resnet")


def test_without_data_the_error_is_clear_and_nothing_is_written(no_data, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="`make data`"):
        train("resnet-mini")
    assert not (tmp_path / "weights").exists()
