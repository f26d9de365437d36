"""Evaluations that are made of counts: every measure and every interval can be computed from them again."""

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from uaplib.metrics.intervals import json_safe


def pack(values: Tensor) -> dict:
    """Return a tensor of booleans, counts or float64 as a short JSON-safe dictionary, which `unpack` reads.

    shape and dtype: of the values as they are written; booleans as bits, counts in the smallest unsigned integers that
    hold them, little-endian. zlib: their bytes, compressed, in base64. Raises ValueError for a negative count or
    another type.
    """
    array = values.cpu().numpy()
    if array.dtype.kind == "i" and array.min(initial=0) >= 0:
        array = array.astype(np.min_scalar_type(array.max(initial=0)))
    if array.dtype not in (np.bool_, np.float64) and array.dtype.kind != "u":
        raise ValueError(f"only booleans, float64 and counts of at least 0 are packed, not {values.dtype}")
    written = np.packbits(array) if array.dtype == np.bool_ else array.astype(array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "zlib": base64.b64encode(zlib.compress(written.tobytes(), 9)).decode(),
    }


def unpack(packed: Mapping[str, Any]) -> Tensor:
    """Return what `pack` was given: booleans, float64, or counts as int64. Raises ValueError for damaged ones."""
    try:
        shape, dtype = packed["shape"], np.dtype(packed["dtype"]).newbyteorder("<")
        content = np.frombuffer(zlib.decompress(base64.b64decode(packed["zlib"])), np.uint8)
        if dtype == np.bool_:
            array = np.unpackbits(content)[: math.prod(shape)].astype(bool)
        else:
            array = content.view(dtype).astype(np.float64 if dtype.kind == "f" else np.int64)
        return torch.from_numpy(array.reshape(shape))
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"packed values are damaged: {error}") from error


class Counts:
    """What an evaluation has counted: the fields of a dataclass, each a tensor, a whole number or a truth value.

    `MEASURES` are the names of what can be computed from them. Two evaluations are equal when all counts are.
    """

    MEASURES: ClassVar[tuple[str, ...]]

    def as_dict(self) -> dict:
        """Return all measures, JSON-safe: each proportion and each estimate as value, interval and n."""
        return json_safe({name: getattr(self, name) for name in self.MEASURES})

    def counts(self) -> dict:
        """Return the counts, JSON-safe, tensors as in `pack`. `from_counts` gives the same evaluation again."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: pack(value) if isinstance(value, Tensor) else value for name, value in values.items()}

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> Self:
        """Return the evaluation that has these counts. Raises ValueError for others than `counts` returns."""
        names = {each.name for each in fields(cls)}
        if counts.keys() != names:
            raise ValueError(f"{cls.__name__} is made of {sorted(names)}, not of {sorted(counts)}")
        return cls(**{name: unpack(value) if isinstance(value, Mapping) else value for name, value in counts.items()})

    def __repr__(self) -> str:
        """Write the measures, which say more than the counts."""
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.MEASURES)})"

    def __eq__(self, other: object) -> bool:
        """Whether all counts are the same."""
        return type(self) is type(other) and self.counts() == other.counts()

    __hash__ = None
