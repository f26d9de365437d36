"""Proportions with 95 % Wilson intervals, and other measures with 95 % intervals by bootstrap over images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Proportion:
    """A share `count` / `n`. Raises ValueError unless 0 <= count <= n and n > 0."""

    count: int
    n: int

    def __post_init__(self):
        """Check the two counts."""
        if not (self.n > 0 and 0 <= self.count <= self.n):
            raise ValueError(f"a proportion needs 0 <= count <= n and n > 0, not {self.count} of {self.n}")

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval (Wilson, 1927), in [0, 1]."""
        from scipy import stats  # slow to import, and attacks only count

        low, high = stats.binomtest(self.count, self.n).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        """Write percentage, interval and n, for instance '63.2 % [60.2, 66.1], n=1000'."""
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}], n={self.n}"


def share(mask: Tensor) -> Proportion:
    """Return the share of True in a boolean tensor."""
    return Proportion(int(mask.sum()), mask.numel())


@dataclass(frozen=True)
class Estimate:
    """A measure over `n` images, with its 95 % interval by bootstrap over the images."""

    value: float
    interval: tuple[float, float]
    n: int

    def __str__(self) -> str:
        """Write value, interval and n, for instance '0.632 [0.602, 0.661], n=233'."""
        return f"{self.value:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}], n={self.n}"


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int = 1000, block: int = 1) -> Estimate:
    """Return a measure of `n` images with its percentile interval, from the same resamples in every call.

    statistic: from indices of images, (..., n), to values (...). block: so many consecutive images are drawn together,
    the last one followed by the first (the circular block bootstrap of Politis and Romano, 1992); for frames of a
    film, which are no independent images. Where all images agree, or there is but one, the interval is the value
    itself. Raises ValueError for a block that is not between 1 and n.
    """
    from scipy import stats

    if not 1 <= block <= n:
        raise ValueError(f"block must be between 1 and the number of images, {n}, not {block}")
    value = float(statistic(np.arange(n)))
    if n == 1:
        return Estimate(value, (value, value), n)
    rng = np.random.default_rng(0)
    if block > 1:
        first = rng.integers(n, size=(resamples, -(-n // block), 1))
        index = ((first + np.arange(block)) % n).reshape(resamples, -1)[:, :n]
        drawn = np.concatenate([statistic(some) for some in np.array_split(index, -(-resamples // 50))])
        low, high = np.percentile(drawn, [2.5, 97.5])
        return Estimate(value, (float(low), float(high)), n)
    drawn = stats.bootstrap(
        (np.arange(n),), lambda index, axis: statistic(index), vectorized=True, n_resamples=resamples, batch=50,
        method="percentile", rng=rng,
    ).confidence_interval  # fmt: skip
    return Estimate(value, (float(drawn.low), float(drawn.high)), n)


def json_safe(fields: Mapping[str, Any]) -> dict:
    """Return the fields, and those of dictionaries in them, with each proportion and estimate as value, interval, n."""
    return {name: _json_safe(value) for name, value in fields.items()}


def _json_safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json_safe(value)
    if isinstance(value, Proportion | Estimate):
        return {"value": value.value, "interval": list(value.interval), "n": value.n}
    return value
