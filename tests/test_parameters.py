import math

import pytest

from uaplib import models
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
    validate,
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ModelName, "resnet-mini"), (Budget255, 10), (Budget255, 0.1), (Budget255, 255), (Length, 0.01), (Length, 2.5),
        (Count, 1), (Counts, [1]), (Counts, [3, 1, 3]), (SceneCount, 1_000_000), (Percent, 100), (Seed, 0),
        (Seed, 2**63 - 1), (bool, True), (ClassifierName, "vgg16-mini"), (ClassifierName, "resnet18"),
        (ImageNetName, "efficientnet-lite2"), (DepthName, "unet-depth"),
    ],
)  # fmt: skip
def test_good_values_pass(kind, value):
    validate({"x": value}, x=kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ModelName, "resnet"), (ModelName, 1), (Budget255, 0), (Budget255, 0.09), (Budget255, 256), (Budget255, "10"),
        (Budget255, math.nan), (Budget255, True), (Length, 0), (Length, -1), (Length, math.inf), (Count, 0),
        (Count, 1.5), (Count, "1"), (Count, True), (Count, None), (Seed, -1), (Seed, 2**63), (Seed, 0.0),
        (Percent, 0), (Percent, 101), (SceneCount, 1_000_001), (ClassifierName, "unet-depth"),
        (ClassifierName, "vgg"), (ClassifierName, "fcn_resnet50"), (ImageNetName, "vgg16-mini"),
        (ImageNetName, "midas-small"), (DepthName, "unet-scenes"), (DepthName, "midas-small"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_and_the_parameter_named(kind, value):
    with pytest.raises(ValueError, match=f"^parameter eps_255={value!r} is not allowed: ."):
        validate({"eps_255": value}, eps_255=kind)


@pytest.mark.parametrize("value", [[], [0], [1.5], [True], "1", 1])
def test_bad_lists_are_refused_and_the_parameter_named(value):
    with pytest.raises(ValueError, match="^parameter shown=.* is not allowed: ."):
        validate({"shown": value}, shown=Counts)


def test_an_unknown_model_gets_suggestions():
    with pytest.raises(ValueError, match="parameter model='vgg16' is not allowed.*Did you mean 'vgg16-mini'"):
        validate({"model": "vgg16"}, model=ModelName)


@pytest.mark.parametrize("name", models.names())
def test_every_model_of_the_registry_is_allowed(name):
    validate({"model": name}, model=ModelName)


def test_only_the_named_entries_are_checked():
    validate({"a": 1, "other": object()}, a=Count)


def test_a_missing_parameter_is_named():
    with pytest.raises((KeyError, ValueError), match="images"):
        validate({}, images=Count)
