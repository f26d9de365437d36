"""The picture on the book's front page: test images, one perturbation, and what a network says before and after."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from uaplib import models
from uaplib.data import fashion_mnist
from uaplib.experiments import Recipe, studies
from uaplib.files import write_atomically
from uaplib.metrics import predict

RECIPE = next(recipe for recipe in studies.uap_study()["sizes"] if recipe.images == 1000)
CLASSES = ("Ankle boot", "Dress", "Bag", "Coat", "Trouser", "Sneaker")  # of the six pictures, row by row

_BACKGROUND, _FRAME, _TEXT = "#11151f", "#3a4256", "#e6e9f0"  # a dark card, which suits a white and a black page
_RIGHT, _WRONG = "#4fd1a1", "#ff7a59"
_COLOURS = LinearSegmentedColormap.from_list("glow", ["#9a80ff", "#4d38ad", "#171a28", "#b0590f", "#ffa047"])
_WIDTH, _HEIGHT = 12.0, 5.8  # inches, and units of the drawing
_TILE, _STEP_X, _STEP_Y = 1.3, 1.62, 1.78


def make_hero(path: str | Path, recipe: Recipe = RECIPE) -> Figure:
    """Draw the picture, write it to `path` as PNG and return the figure.

    The six images are, for each class in turn, the first test image that the network gets right and that the
    perturbation fools. Raises ValueError when a class has none.
    """
    perturbation = recipe.load_or_craft()
    images, clean, perturbed = _choose(recipe.model, perturbation.delta)
    figure = plt.figure(figsize=(_WIDTH, _HEIGHT), facecolor=_BACKGROUND, layout="none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(0, _HEIGHT))
    axis.axis("off")
    top = _HEIGHT - 0.38
    _tiles(axis, images, clean, 0.42, top, _RIGHT)
    _perturbation(axis, perturbation.delta, perturbation.ball.eps, 4.42, 1.32, 3.16)
    _tiles(axis, perturbation.apply(images), perturbed, _WIDTH - 0.42 - _STEP_X - _TILE, top, _WRONG)
    for x, sign in ((3.88, "+"), (8.12, "=")):
        axis.text(x, 2.9, sign, color=_TEXT, fontsize=38, ha="center", va="center", fontweight="light")
    write_atomically(Path(path), lambda temporary: figure.savefig(temporary, format="png", dpi=130))
    return figure


def _choose(model: str, delta: Tensor) -> tuple[Tensor, list[str], list[str]]:
    """Return six fooled test images with the names of their labels before and after."""
    network, test = models.load(model), fashion_mnist.load("test")
    before, after = predict(network, test.images), predict(network, test.images, delta)
    fooled = (before == test.labels) & (after != before)
    chosen = []
    for name in CLASSES:
        candidates = (fooled & (test.labels == fashion_mnist.CLASSES.index(name))).nonzero().flatten()
        if not len(candidates):
            raise ValueError(f"the perturbation fools no test image of the class {name!r}")
        chosen.append(candidates[0])
    rows = torch.stack(chosen)
    names = [[fashion_mnist.CLASSES[label] for label in labels[rows].tolist()] for labels in (before, after)]
    return test.images[rows], *names


def _tiles(axis: Axes, images: Tensor, labels: list[str], left: float, top: float, colour: str) -> None:
    """Draw six pictures in three rows of two, each above its label."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = left + _STEP_X * (number % 2), top - _TILE - _STEP_Y * (number // 2)
        _picture(axis, image, (x, y, _TILE), cmap="gray", limits=(0, 1))
        axis.text(
            x + _TILE / 2, y - 0.2, label, color=colour, fontsize=16.5, ha="center", va="center", fontweight="bold"
        )


def _perturbation(axis: Axes, delta: Tensor, eps: float, left: float, bottom: float, size: float) -> None:
    """Draw the perturbation, large: orange adds light, violet takes it away, dark is zero."""
    glow = FancyBboxPatch(
        (left, bottom), size, size, boxstyle="round,pad=0.12,rounding_size=0.14", fc="#ffffff10", ec="#ffffff28", lw=1
    )
    axis.add_patch(glow)
    _picture(axis, delta[0], (left, bottom, size), cmap=_COLOURS, limits=(-eps, eps))
    axis.text(
        left + size / 2, bottom - 0.42, "one perturbation for all", color=_TEXT, fontsize=16.5, ha="center", va="center"
    )


def _picture(
    axis: Axes, image: Tensor, place: tuple[float, float, float], cmap: str | Colormap, limits: tuple[float, float]
) -> None:
    x, y, size = place
    extent = (x, x + size, y, y + size)
    low, high = limits
    axis.imshow(image[0], cmap=cmap, vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect="auto")
    axis.add_patch(Rectangle((x, y), size, size, fill=False, ec=_FRAME, lw=1))
