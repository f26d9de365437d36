import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from uaplib import plots
from uaplib.data import camvid, scenes
from uaplib.metrics import Proportion


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
    plots.matrix(axis, np.array([[1.2, 60.0], [45.4, 3.0]]), ["a", "b"], ["c", "d"], highest=100, framed=np.eye(2) > 0)
    assert [patch.get_xy() for patch in axis.patches] == [(-0.5, -0.5), (0.5, 0.5)]
    assert axis.images[0].get_clim() == (0, 100)
    assert [text.get_color() for text in axis.texts] == ["black", "white", "black", "black"]
