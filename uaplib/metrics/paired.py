"""Two measurements of the same images, compared image by image."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from uaplib.metrics.intervals import Estimate, bootstrap


class Comparison(NamedTuple):
    """Two shares of the same N images, for instance the fooling rates of two perturbations.

    difference: the first share less the second, with a 95 % interval by bootstrap over the images. only_first,
    only_second: images that count in one and not in the other. p_value: McNemar's exact test (1947), two-sided.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float

    def __str__(self) -> str:
        """Write all of it, for instance '+12.4 points [9.1, 15.6], 190 : 66 images, p = 3e-15'."""
        value, (low, high) = 100 * self.difference.value, (100 * end for end in self.difference.interval)
        images = f"{self.only_first} : {self.only_second} images"
        return f"{value:+.1f} points [{low:.1f}, {high:.1f}], {images}, p = {self.p_value:.1g}"


def difference(first: ArrayLike | Tensor, second: ArrayLike | Tensor, block: int = 1) -> Estimate:
    """Return the mean of `first` less that of `second`, with its 95 % interval by bootstrap over the images.

    One number an image in each, (N,): whether it was fooled, or by which share of several draws. block: see
    `bootstrap`. Raises ValueError unless both are of the same images, at least one.
    """
    a, b = (_array(values).astype(float) for values in (first, second))
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"one number for each of the same images is needed, (N,), not {a.shape} and {b.shape}")
    per_image = a - b
    return bootstrap(lambda index: per_image[index].mean(-1), len(per_image), block=block)


def paired(first: ArrayLike | Tensor, second: ArrayLike | Tensor) -> Comparison:
    """Return whether two shares of the same images differ.

    first, second: for each image whether it counts, booleans (N,). Raises ValueError as `difference` does, and for
    anything but booleans.
    """
    from scipy import stats  # slow to import, and attacks only count

    a, b = _array(first), _array(second)
    if a.dtype != bool or b.dtype != bool:
        raise ValueError(f"whether each image counts is needed, booleans, not {a.dtype} and {b.dtype}")
    found = difference(a, b)
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return Comparison(found, only_first, only_second, p_value)


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
