from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.testing.compare import compare_images
from torch import nn
from torch.nn import functional as F

from uaplib import metrics, models
from uaplib.balls import NormBall
from uaplib.data import fashion_mnist
from uaplib.perturbation import UniversalPerturbation
from uaplib.pipeline import hero

STEP = 1 / 32  # one more of it in the first pixel is the next label
NEXT = [fashion_mnist.CLASSES[(fashion_mnist.CLASSES.index(name) + 1) % 10] for name in hero.CLASSES]


class FirstPixel(nn.Module):
    """Reads the label off the first pixel; where the second one is bright, off the third, which nobody perturbs."""

    def forward(self, x):
        value = torch.where(x[:, 0, 0, 1] > 0.5, x[:, 0, 0, 2], x[:, 0, 0, 0])
        return 5 * F.one_hot((value / STEP).round().long() % 10, 10).float()


def image(says, robust=False, mark=0.0):
    picture = torch.zeros(1, 4, 4)
    picture[0, 0, :3] = torch.tensor([says * STEP, float(robust), says * STEP])
    picture[0, 3, 3] = mark
    return picture


def samples():
    """Of each class: one that the network gets wrong, one that the perturbation does not fool, then two that count."""
    for label in range(10):
        yield image((label + 3) % 10), label
        yield image((label - 1) % 10), label  # wrong before, right after
        yield image(label, robust=True), label
        yield image(label, mark=0.25), label
        yield image(label, mark=0.5), label


@pytest.fixture
def test_set(monkeypatch):
    """Images and labels that stand for the test split; a test may change them."""
    pictures, labels = zip(*samples(), strict=True)
    found = fashion_mnist.Images(torch.stack(pictures), torch.tensor(labels))
    monkeypatch.setattr(models, "load", {"first-pixel": FirstPixel().eval()}.__getitem__)
    monkeypatch.setattr(fashion_mnist, "load", {"test": found}.__getitem__)
    return found


@pytest.fixture
def recipe():
    delta = torch.zeros(1, 1, 4, 4)
    delta[..., 0, 0] = STEP
    found = UniversalPerturbation(delta, NormBall(inf, STEP), "uap", "first-pixel")
    return SimpleNamespace(model="first-pixel", load_or_craft=lambda: found)


def test_each_class_shows_its_first_image_that_is_right_and_then_fooled(test_set, recipe):
    delta = recipe.load_or_craft().delta
    images, clean, perturbed = hero._choose("first-pixel", delta)
    assert clean == list(hero.CLASSES)
    assert perturbed == NEXT
    assert images[:, 0, 3, 3].tolist() == [0.25] * len(hero.CLASSES)
    labels = torch.tensor([fashion_mnist.CLASSES.index(name) for name in hero.CLASSES])
    network = FirstPixel().eval()
    assert torch.equal(metrics.predict(network, images), labels)
    assert (metrics.predict(network, images, delta) != labels).all()


def test_the_picture_shows_them_and_is_written(test_set, recipe, tmp_path):
    figure = hero.make_hero(tmp_path / "new" / "hero.png", recipe)
    assert (tmp_path / "new" / "hero.png").read_bytes().startswith(b"\x89PNG")
    (axis,) = figure.axes
    words = {colour: [text.get_text() for text in axis.texts if text.get_color() == colour]
             for colour in (hero._RIGHT, hero._WRONG)}  # fmt: skip
    assert words == {hero._RIGHT: list(hero.CLASSES), hero._WRONG: NEXT}
    shown = [torch.as_tensor(picture.get_array()) for picture in axis.images]
    before, delta, after = torch.stack(shown[:6]), shown[6], torch.stack(shown[7:])
    assert torch.equal(delta, recipe.load_or_craft().delta[0, 0])
    assert torch.allclose(after, before + delta)
    assert [picture.get_clim() for picture in axis.images] == [(0, 1)] * 6 + [(-STEP, STEP)] + [(0, 1)] * 6


def test_everything_is_where_it_was(test_set, recipe, tmp_path):
    """Sizes, places, colours and fonts, beside a picture that somebody has looked at."""
    hero.make_hero(tmp_path / "hero.png", recipe)
    assert compare_images(Path(__file__).with_name("hero.png"), tmp_path / "hero.png", tol=0.5) is None


def test_a_class_of_which_none_is_fooled_is_an_error_and_leaves_no_picture(test_set, recipe, tmp_path):
    coats = test_set.labels == fashion_mnist.CLASSES.index("Coat")
    test_set.images[coats, 0, 0, 1] = 1.0
    with pytest.raises(ValueError, match="fools no test image of the class 'Coat'"):
        hero.make_hero(tmp_path / "hero.png", recipe)
    assert list(tmp_path.iterdir()) == []


def test_the_books_own_picture_is_of_an_artifact_of_the_book():
    assert hero.RECIPE.name == "uap-resnet-mini-linf24-n1000-p3-s0"
