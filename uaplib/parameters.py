"""Validation of a notebook's parameters, right after the cell that papermill overrides."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from uaplib import models
from uaplib.names import check_name

ModelName = Annotated[str, AfterValidator(lambda name: check_name("model", name, models.names()))]
AnyModelName = Annotated[str, AfterValidator(lambda name: models.check_model_name(name))]  # ImageNet's too
Budget255 = Annotated[int | float, Field(gt=0, le=255)]  # an l-infinity budget in steps of 8-bit pixels
Length = Annotated[int | float, Field(gt=0, le=100)]  # an l2 budget in units of [0, 1]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def validate(values: Mapping[str, Any], **types: Any) -> None:
    """Check each named entry of `values` (a notebook's `globals()`) against its type.

    A type is one of this module's, or anything pydantic understands. Raises ValueError that names the parameter, its
    value and what is allowed.
    """
    for name, kind in types.items():
        try:
            TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(values[name])
        except ValidationError as error:
            reason = "; ".join(problem["msg"] for problem in error.errors())
            raise ValueError(f"parameter {name}={values[name]!r} is not allowed: {reason}") from None
