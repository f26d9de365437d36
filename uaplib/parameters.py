"""The types of the notebooks' parameters, and the check right after the cell that papermill overrides."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from uaplib import models
from uaplib.names import check_name


def _classifier(name: str) -> str:
    if models.says(name) != "label":
        raise ValueError(f"{name} says something about pixels, and this chapter is about labels of whole images")
    return name


def _of_photographs(name: str) -> str:
    models.preprocessing(name)
    return name


MINIS, DEPTH = models.names(), [name for name in models.trained_here() if models.says(name) == "depth"]
ModelName = Annotated[str, AfterValidator(lambda name: check_name("model", name, MINIS))]
DepthName = Annotated[str, AfterValidator(lambda name: check_name("model", name, DEPTH))]
ClassifierName = Annotated[str, AfterValidator(_classifier)]
ImageNetName = Annotated[str, AfterValidator(_of_photographs), AfterValidator(_classifier)]
SegmentedSet = Literal["camvid", "scenes"]  # data sets with a label for each pixel
StudyName = Literal["imagenet", "paper"]  # transfer matrices of networks for photographs
# float32 rounds a pixel near 1 by 3e-8: of smaller budgets too little is left to check and to measure.
Budget255 = Annotated[int | float, Field(ge=0.1, le=255)]  # an l-infinity budget in steps of 8-bit pixels
Length = Annotated[int | float, Field(ge=0.01, le=100)]  # an l2 budget in units of [0, 1]
Count = Annotated[int, Field(ge=1)]
Several = Annotated[int, Field(ge=2)]
Counts = Annotated[list[Count], Field(min_length=1)]
SceneCount = Annotated[int, Field(ge=1, le=1_000_000)]  # so many can be rendered before the next split begins
Percent = Annotated[int, Field(ge=1, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def check(values: Mapping[str, Any]) -> None:
    """Check a notebook's parameters: each name that is annotated in `values`, its `globals()`, against its annotation.

    An annotation is one of this module's types, or anything pydantic understands. It stands for whatever value the
    parameter has by now, so that of papermill, too. Raises ValueError that names the parameter, its value and what is
    allowed, and where nothing is annotated; KeyError for an annotation without a value.
    """
    annotations = values.get("__annotations__")
    if annotations is None and "__annotate__" in values:  # Python 3.14 makes them when they are asked for (PEP 649)
        annotations = values["__annotate__"](1)
    if not annotations:
        raise ValueError("no parameter is annotated here: run the cell with the parameters first")
    for name, kind in annotations.items():
        _check(name, values[name], kind)


def _check(name: str, value: Any, kind: Any) -> None:
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        reason = "; ".join(problem["msg"] for problem in error.errors())
        raise ValueError(f"parameter {name}={value!r} is not allowed: {reason}") from None
