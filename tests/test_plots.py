import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from uaplib import plots
from uaplib.data import camvid, scenes
from uaplib.metrics import Estimate, Proportion


@pytest.fixture(autouse=True)
def headless():
    with plt.rc_context():
        plt.switch_backend("agg")
        plots.style()
        yield
        plt.close("all")


def test_the_style_is_the_books():
    assert plt.rcParams["figure.facecolor"] == "white"
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.COLOURS)


def test_images_on_a_grid_with_titles():
    figure = plots.show(torch.rand(5, 1, 4, 4), titles=list("abcde"), columns=3)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(figure.axes) == 6
    assert [axis.get_title() for axis in drawn] == list("abcde")
    assert drawn[0].images[0].get_clim() == (0, 1)


def test_colour_images_keep_their_channels():
    image = torch.rand(3, 4, 5)
    assert np.array_equal(plots.picture(image), image.movedim(0, -1).numpy())
    assert plots.picture(image[:1]).shape == (4, 5)


def test_perturbations_are_drawn_around_zero():
    figure = plots.show_perturbations(torch.zeros(1, 1, 2, 2), eps=0.1)
    assert figure.axes[0].images[0].get_clim() == (-0.1, 0.1)


def test_rates_are_drawn_in_per_cent_with_their_band():
    _, axis = plt.subplots()
    proportions = [Proportion(10, 100), Proportion(50, 100)]
    plots.rates(axis, [1, 2], proportions, label="UAP")
    assert axis.lines[0].get_ydata().tolist() == [10, 50]
    band = axis.collections[0]
    low, high = (100 * v for v in proportions[0].interval)
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(low)
    assert high in [pytest.approx(h) for h in heights]
    assert to_hex(band.get_facecolor()[0][:3]) == to_hex(axis.lines[0].get_color())


NOISE, UAP = [Proportion(10, 100), Proportion(0, 100)], [Proportion(50, 100), Proportion(100, 100)]


def ends(axis, horizontal=False):
    """The ends of all intervals, in the order in which they were drawn."""
    segments = [segment for lines in axis.collections for segment in lines.get_segments()]
    return [tuple(segment[:, 0 if horizontal else 1]) for segment in segments]


def test_bars_are_drawn_in_per_cent_with_their_intervals():
    _, axis = plt.subplots()
    plots.bars(axis, ["a", "b"], {"noise": NOISE, "UAP": UAP}, colours=["gray", "red"])
    assert [bar.get_height() for bar in axis.patches] == [10, 0, 50, 100]
    assert ends(axis) == [pytest.approx([100 * end for end in p.interval]) for p in (*NOISE, *UAP)]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]
    assert axis.get_legend_handles_labels()[1] == ["noise", "UAP"]
    assert [to_hex(bar.get_facecolor()) for bar in axis.patches] == ["#808080"] * 2 + ["#ff0000"] * 2


def test_horizontal_bars_have_the_first_label_on_top_and_may_each_have_a_colour():
    _, axis = plt.subplots()
    plots.bars(axis, ["a", "b"], {"UAP": UAP}, colours=[["gray", "red"]], horizontal=True)
    assert [bar.get_width() for bar in axis.patches] == [50, 100]
    assert ends(axis, horizontal=True) == [pytest.approx([100 * end for end in p.interval]) for p in UAP]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert axis.yaxis_inverted()
    assert [to_hex(bar.get_facecolor()) for bar in axis.patches] == ["#808080", "#ff0000"]


@pytest.mark.parametrize(
    ("number", "width", "places", "drawn"),
    [
        (1, None, [0], 0.8),
        (2, None, [-0.2, 0.2], 0.4),
        (2, 0.3, [-0.2, 0.2], 0.3),
        (2, 0.45, [-0.225, 0.225], 0.45),  # wider than their share: they touch, and do not overlap
    ],
)
def test_bars_of_a_group_stand_around_its_label(number, width, places, drawn):
    _, axis = plt.subplots()
    plots.bars(axis, ["a"], {str(k): UAP[:1] for k in range(number)}, width=width)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches] == pytest.approx(places)
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([drawn] * number)


def test_bars_of_estimates_keep_their_unit_and_an_interval_beside_the_value_turns_nowhere():
    _, axis = plt.subplots()
    plots.bars(axis, ["a", "b"], {"IoU": [Estimate(0.4, (0.3, 0.6), 9), Estimate(0.2, (0.25, 0.5), 9)]}, factor=1)
    assert [bar.get_height() for bar in axis.patches] == [0.4, 0.2]
    assert ends(axis) == [pytest.approx((0.3, 0.6)), pytest.approx((0.2, 0.5))]


def test_dots_lie_in_the_line_of_their_label_in_per_cent():
    _, axis = plt.subplots()
    plots.dots(axis, ["a", "b"], {"noise": [NOISE, NOISE[:1]], "UAP": [[], UAP]}, colours=["gray", "red"], markers="os")
    noise, uap = axis.lines
    assert list(zip(*noise.get_data(), strict=True)) == [(10, 0), (0, 0), (10, 1)]
    assert list(zip(*uap.get_data(), strict=True)) == [(50, 1), (100, 1)]
    assert [to_hex(line.get_color()) for line in axis.lines] == ["#808080", "#ff0000"]
    assert [line.get_marker() for line in axis.lines] == ["o", "s"]
    assert {line.get_linestyle() for line in axis.lines} == {"None"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert axis.yaxis_inverted()
    assert axis.get_legend_handles_labels()[1] == ["noise", "UAP"]


def test_there_may_be_more_dots_than_colours_and_markers():
    _, axis = plt.subplots()
    plots.dots(axis, ["a"], {str(k): [UAP] for k in range(3)}, colours=["gray", "red"], markers="os")
    assert [(to_hex(line.get_color()), line.get_marker()) for line in axis.lines] == [
        ("#808080", "o"), ("#ff0000", "s"), ("#808080", "o"),
    ]  # fmt: skip


def test_a_matrix_has_a_number_in_every_cell():
    _, axis = plt.subplots()
    axis.set_title("fooling")
    plots.matrix(axis, np.array([[1.2, 90.0], [45.4, 3.0]]), ["a", "b"], ["c", "d"])
    assert [text.get_text() for text in axis.texts] == ["1", "90", "45", "3"]
    assert axis.get_title() == "fooling (%)"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["c", "d"]


THREE = ((255, 0, 0), (0, 51, 0), (0, 0, 102))


def test_label_maps_have_the_colour_of_every_label():
    labels = torch.tensor([[[0, 1, 2], [2, 2, 0]]])
    found = plots.label_maps(labels, THREE)
    assert found.shape == (1, 3, 2, 3)
    red, green, blue = found[0]
    assert red.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert green.tolist() == [[0, pytest.approx(0.2), 0], [0, 0, 0]]
    assert blue.tolist() == [[0, 0, pytest.approx(0.4)], [pytest.approx(0.4), pytest.approx(0.4), 0]]


@pytest.mark.parametrize("data", [camvid, scenes])
def test_every_class_and_void_have_a_colour_of_their_own(data):
    everything = torch.arange(len(data.CLASSES) + 1).view(1, 1, -1)
    drawn = plots.label_maps(everything, data.COLOURS)[0, :, 0].T
    assert len({tuple(colour) for colour in drawn.tolist()}) == len(data.CLASSES) + 1
    assert drawn[data.VOID].tolist() == [0, 0, 0]


def test_the_legend_of_labels_says_which_colour_is_which_class():
    figure = plots.show(plots.label_maps(torch.zeros(1, 4, 6).long(), THREE))
    plots.legend_of_labels(figure, ["sky", "tree"], THREE)  # the last colour is of void, which has no name
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sky", "tree"]
    assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == ["#ff0000", "#003300"]


def test_a_matrix_can_frame_cells_and_share_its_colours():
    _, axis = plt.subplots()
    plots.matrix(axis, np.array([[1.2, 62.0], [45.4, 3.0]]), ["a", "b"], ["c", "d"], highest=100, framed=np.eye(2) > 0)
    assert [patch.get_xy() for patch in axis.patches] == [(-0.5, -0.5), (0.5, 0.5)]
    assert axis.images[0].get_clim() == (0, 100)
    assert [text.get_color() for text in axis.texts] == ["black", "white", "black", "black"]
