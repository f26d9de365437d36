"""One style for every figure of the book, and the drawings that several chapters share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from uaplib.metrics import Estimate, Proportion

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is left to text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NOISE_COLOUR = "#767676"


def style() -> None:
    """Set the book's matplotlib style; every chapter calls it once."""
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.facecolor": "white",  # figures stay readable on the dark theme
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.titlesize": "medium",
            "grid.alpha": 0.3,
            "image.cmap": "gray",
            "legend.frameon": False,
            "lines.markersize": 4,
            "savefig.facecolor": "white",
        }
    )


def show(
    images: Tensor,
    titles: Sequence[str] = (),
    columns: int | None = None,
    scale: float = 1.1,
    limits: tuple[float, float] = (0, 1),
    cmap: str = "gray",
) -> Figure:
    """Draw images (N, C, H, W) on a grid of `columns`, each below its title; `limits` are the values at both ends."""
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    height = scale * images.shape[-2] / images.shape[-1] + (0.25 * scale if titles else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * scale, rows * height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, list(titles) or [""] * len(images), strict=False):
        axis.imshow(picture(image), vmin=limits[0], vmax=limits[1], cmap=cmap, interpolation="nearest")
        axis.set_title(title, fontsize="x-small")
    return figure


def show_perturbations(deltas: Tensor, eps: float, titles: Sequence[str] = (), **layout) -> Figure:
    """Draw grey perturbations (N, 1, H, W): orange adds light, purple takes it away, white is zero; full at +-eps."""
    return show(deltas, titles, limits=(-eps, eps), cmap="PuOr_r", **layout)


def label_maps(labels: Tensor, colours: Sequence[tuple[int, int, int]]) -> Tensor:
    """Return label maps (N, H, W), int64, as images (N, 3, H, W) in [0, 1]; `colours` has 8-bit RGB for each label."""
    return (torch.tensor(colours) / 255)[labels.cpu()].movedim(-1, 1)


def legend_of_labels(figure: Figure, names: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> None:
    """Write below a figure which colour of `label_maps` is which class."""
    patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in zip(names, colours, strict=False)]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize="small")


def picture(image: Tensor) -> np.ndarray:
    """Return one image (C, H, W) as an array that matplotlib draws: (H, W), or (H, W, 3)."""
    return image.detach().cpu().squeeze(0).numpy() if len(image) == 1 else image.detach().cpu().movedim(0, -1).numpy()


def rates(axis: Axes, x: Sequence[float], proportions: Sequence[Proportion], **line) -> None:
    """Draw proportions in per cent against x, with their 95 % intervals as a band."""
    (drawn,) = axis.plot(x, [100 * p.value for p in proportions], marker="o", **line)
    low, high = zip(*(p.interval for p in proportions), strict=True)
    axis.fill_between(x, [100 * v for v in low], [100 * v for v in high], color=drawn.get_color(), alpha=0.2, lw=0)


def bars(
    axis: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Proportion | Estimate]],
    *,
    colours: Sequence[Any] = COLOURS,
    factor: float = 100,
    horizontal: bool = False,
    width: float | None = None,
    **style: Any,
) -> None:
    """Draw measured values as bars with their 95 % intervals, a group of bars for each label.

    series: by its name in the legend, one value for each label. colours: one for each series, or a list of one for
    each of its bars. factor: what a value is multiplied by; 100 draws per cent. horizontal: the first label is on
    top. width: of one bar, where groups are 1 apart; the bars of a group fill 0.8 by default and never overlap. style:
    goes to matplotlib's `bar` or `barh`, for instance `capsize=2`.
    """
    width = width or 0.8 / len(series)
    step = max(width, 0.8 / len(series))
    draw, errors = (axis.barh, "xerr") if horizontal else (axis.bar, "yerr")
    for k, (name, measured) in enumerate(series.items()):
        places = np.arange(len(labels)) + step * (k - (len(series) - 1) / 2)
        values = np.array([factor * one.value for one in measured])
        draw(places, values, width, label=name, color=colours[k], **{errors: _errors(measured, factor)}, **style)
    if horizontal:
        axis.set_yticks(range(len(labels)), labels)
        axis.invert_yaxis()
    else:
        axis.set_xticks(range(len(labels)), labels)


def dots(
    axis: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Sequence[Proportion]]],
    *,
    colours: Sequence[Any] = COLOURS,
    markers: Sequence[str] = "o",
) -> None:
    """Draw several measured values in per cent for each label, a line of dots for each; the first label is on top.

    series: by its name in the legend, for each label the values, for instance of several draws. colours, markers: one
    for each series; where there are fewer, they begin again.
    """
    for k, (name, measured) in enumerate(series.items()):
        lines = [line for line, values in enumerate(measured) for _ in values]
        rates = [100 * one.value for values in measured for one in values]
        marker = markers[k % len(markers)]
        axis.plot(rates, lines, marker, color=colours[k % len(colours)], label=name, alpha=0.8)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)


def _errors(measured: Sequence[Proportion | Estimate], factor: float) -> np.ndarray:
    """How far the intervals reach below and above their values, (2, N); rounding makes no length negative."""
    below = [factor * (one.value - one.interval[0]) for one in measured]
    above = [factor * (one.interval[1] - one.value) for one in measured]
    return np.maximum([below, above], 0)


def matrix(
    axis: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str = "%",
    highest: float | None = None,
    framed: np.ndarray | None = None,
) -> None:
    """Draw a table of numbers as a heat map with the number in every cell.

    highest: the value of the darkest colour, the table's largest by default. framed: booleans like `values`, the
    cells that get a frame.
    """
    axis.imshow(values, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    dark = 0.6 * (highest or np.nanmax(values))  # from here on white is the easier to read
    for (row, column), value in np.ndenumerate(values):
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > dark else "black",
                  fontsize="small")  # fmt: skip
    for row, column in np.argwhere(framed) if framed is not None else ():
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="black", lw=1.8, clip_on=False))
    axis.set_title(f"{axis.get_title()} ({unit})" if axis.get_title() else "")
