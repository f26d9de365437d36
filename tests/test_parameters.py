import math

import pytest

from uaplib import models, parameters
from uaplib.parameters import (
    Budget255,
    ClassifierName,
    Count,
    Counts,
    DepthName,
    ImageNetName,
    Length,
    ModelName,
    Percent,
    SceneCount,
    Seed,
    SegmentedSet,
    Several,
    StudyName,
)  # fmt: skip


def check(value, kind, name="x"):
    """Check one parameter, as the cell `name: kind = value` leaves it."""
    parameters.check({name: value, "__annotations__": {name: kind}})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ModelName, "resnet-mini"), (Budget255, 10), (Budget255, 0.1), (Budget255, 255), (Length, 0.01), (Length, 2.5),
        (Count, 1), (Several, 2), (Counts, [1]), (Counts, [3, 1, 3]), (SceneCount, 1_000_000), (Percent, 100),
        (Seed, 0), (Seed, 2**63 - 1), (bool, True), (ClassifierName, "vgg16-mini"), (ClassifierName, "resnet18"),
        (ImageNetName, "efficientnet-lite2"), (DepthName, "unet-depth"), (SegmentedSet, "scenes"), (StudyName, "paper"),
    ],
)  # fmt: skip
def test_good_values_pass(kind, value):
    check(value, kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ModelName, "resnet"), (ModelName, 1), (Budget255, 0), (Budget255, 0.09), (Budget255, 256), (Budget255, "10"),
        (Budget255, math.nan), (Budget255, True), (Length, 0), (Length, -1), (Length, math.inf), (Count, 0),
        (Count, 1.5), (Count, "1"), (Count, True), (Count, None), (Several, 1), (Seed, -1), (Seed, 2**63), (Seed, 0.0),
        (Percent, 0), (Percent, 101), (SceneCount, 1_000_001), (ClassifierName, "unet-depth"),
        (ClassifierName, "vgg"), (ClassifierName, "fcn_resnet50"), (ImageNetName, "vgg16-mini"),
        (ImageNetName, "midas-small"), (DepthName, "unet-scenes"), (DepthName, "midas-small"), (SegmentedSet, "kitti"),
        (StudyName, "fashion-mnist"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_and_the_parameter_named(kind, value):
    with pytest.raises(ValueError, match=f"^parameter eps_255={value!r} is not allowed: ."):
        check(value, kind, "eps_255")


@pytest.mark.parametrize("value", [[], [0], [1.5], [True], "1", 1])
def test_bad_lists_are_refused_and_the_parameter_named(value):
    with pytest.raises(ValueError, match="^parameter shown=.* is not allowed: ."):
        check(value, Counts, "shown")


def test_an_unknown_model_gets_suggestions():
    with pytest.raises(ValueError, match="parameter model_name='vgg16' is not allowed.*Did you mean 'vgg16-mini'"):
        check("vgg16", ModelName, "model_name")


@pytest.mark.parametrize("name", models.names())
def test_every_model_of_the_registry_is_allowed(name):
    check(name, ModelName)


CELL = """
eps_255: Budget255 = 10  # l-infinity budget in 255ths
shown: Counts = [1, 2]
"""


@pytest.fixture
def notebook():
    """The names of a notebook after its parameters cell, beside names without a type."""
    names = {"Budget255": Budget255, "Counts": Counts, "other": object()}
    exec(CELL, names)
    return names


def test_a_cell_with_good_defaults_passes(notebook):
    parameters.check(notebook)


def test_values_that_a_later_cell_puts_in_are_checked_by_the_same_types(notebook):
    exec("eps_255 = 20", notebook)
    parameters.check(notebook)
    exec("eps_255 = 'ten'", notebook)
    with pytest.raises(ValueError, match="^parameter eps_255='ten' is not allowed: ."):
        parameters.check(notebook)


def test_every_parameter_is_checked_not_only_the_first(notebook):
    exec("shown = []", notebook)
    with pytest.raises(ValueError, match="^parameter shown=\\[\\] is not allowed: ."):
        parameters.check(notebook)


def test_a_missing_parameter_is_named(notebook):
    del notebook["shown"]
    with pytest.raises(KeyError, match="shown"):
        parameters.check(notebook)


@pytest.mark.parametrize("values", [{}, {"eps_255": 10}, {"eps_255": 10, "__annotations__": {}}])
def test_a_check_before_the_parameters_is_refused(values):
    with pytest.raises(ValueError, match="run the cell with the parameters first"):
        parameters.check(values)
