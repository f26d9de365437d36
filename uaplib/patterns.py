"""Patterns that nobody optimised: chessboards, stripes, waves, blocks, circles and procedural noise, beside noise.

Each is a float32 tensor (1, C, H, W) of values in [-1, 1], to be scaled to a budget. Sizes are in pixels of the image
that the network sees. A chessboard of single pixels is the highest frequency in both directions.
"""

import math

import torch
from torch import Tensor

from uaplib.checks import check_seed, finite, true_or_false, whole
from uaplib.names import check_name

DIRECTIONS = ("columns", "rows", "diagonals")


def chessboard(shape: tuple[int, int, int], size: int = 2) -> Tensor:
    """Return squares of `size` pixels, alternately +1 and -1, the same in all channels; +1 in the corner."""
    rows, columns = _cells(shape, size)
    return _signs((rows[:, None] + columns) % 2 == 0, shape)


def stripes(shape: tuple[int, int, int], size: int = 4, direction: str = "columns") -> Tensor:
    """Return stripes, `size` pixels wide, alternately +1 and -1, the same in all channels.

    direction: along which they run; "diagonals" go down to the left.
    """
    check_name("direction", direction, DIRECTIONS)
    rows, columns = _cells(shape, size)
    if direction == "diagonals":
        _, height, width = shape
        which = (torch.arange(height)[:, None] + torch.arange(width)) // size
    else:
        which = columns.expand(shape[1:]) if direction == "columns" else rows[:, None].expand(shape[1:])
    return _signs(which % 2 == 0, shape)


def fourier(shape: tuple[int, int, int], rows: int = 0, columns: int = 7) -> Tensor:
    """Return a wave of the real Fourier basis (Tsuzuku and Sato, 2019), the same in all channels, its maximum 1.

    rows, columns: how many periods there are from top to bottom and from left to right, at most half as many as
    pixels. Raises ValueError for more, and when both are 0, which is no wave.
    """
    whole(rows=rows, columns=columns)
    _, height, width = shape
    if (rows, columns) == (0, 0) or 2 * abs(rows) > height or 2 * abs(columns) > width:
        raise ValueError(
            f"rows and columns must not both be 0, and be at most {height // 2} and {width // 2}, half as many as "
            f"pixels, not {rows} and {columns}"
        )
    y, x = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * (rows * y[:, None] / height + columns * x / width) + math.pi / 4)
    return (wave / wave.abs().max()).float().expand(1, *shape).clone()


def blocks(shape: tuple[int, int, int], size: int = 8, coloured: bool = True, seed: int = 0) -> Tensor:
    """Return squares of `size` pixels, each +1 or -1 at random, in each channel by itself if `coloured`."""
    true_or_false(coloured=coloured)
    rows, columns = _cells(shape, size)
    channels = shape[0] if coloured else 1
    generator = torch.Generator().manual_seed(check_seed(seed))
    signs = torch.randint(2, (channels, int(rows.max()) + 1, int(columns.max()) + 1), generator=generator)
    return _signs(signs[:, rows][:, :, columns] == 1, shape)


def circles(shape: tuple[int, int, int], tile: int = 50, period: float = 10 / 3) -> Tensor:
    """Return tiles of so many pixels, in each rings around its centre that are +1 and -1, the same in all channels.

    period: how far it is from ring to ring. The defaults are the tiles and rings of Zhang et al. (2022) for 299 pixels.
    """
    finite(period=period)
    if whole(tile=tile)["tile"] < 1 or not period > 0:
        raise ValueError(f"tile must be at least 1 and period positive, not {tile} and {period}")
    _, height, width = shape
    y, x = (torch.arange(side, dtype=torch.float64) % tile - (tile - 1) / 2 for side in (height, width))
    return _signs(torch.cos(2 * math.pi * torch.hypot(y[:, None], x) / period) >= 0, shape)


def perlin(
    shape: tuple[int, int, int], period: float = 60.0, octaves: int = 1, sine: float = 18.0, seed: int = 0
) -> Tensor:
    """Return the sign of a sine of Perlin noise, the same in all channels (Co et al., 2019).

    period: the distance of the noise's lattice in pixels; each of the `octaves` beside the first has half of it and
    half the height of the one before. sine: how many half waves the noise goes through between its ends.
    """
    finite(period=period, sine=sine)
    if whole(octaves=octaves)["octaves"] < 1 or not (period > 0 and sine > 0):
        raise ValueError(f"octaves must be at least 1, period and sine positive, not {octaves}, {period} and {sine}")
    if period < 2**octaves:
        raise ValueError(f"octaves={octaves} are too many for a period of {period}: the last would be below two pixels")
    generator = torch.Generator().manual_seed(check_seed(seed))
    noise = sum(_lattice_noise(shape[1:], period / 2**k, generator) / 2**k for k in range(octaves))
    low, high = noise.aminmax()
    wave = torch.sin(math.pi * sine * (noise - low) / (high - low))
    low, high = wave.aminmax()
    return _signs(wave >= (low + high) / 2, shape)


def _lattice_noise(sides: tuple[int, int], period: float, generator: torch.Generator) -> Tensor:
    """Perlin's noise, float64 (H, W): slopes at the corners of a lattice, drawn at random, smoothly between them."""
    places = [torch.arange(side, dtype=torch.float64) / period for side in sides]
    corners = [each.long() for each in places]
    angles = 2 * math.pi * torch.rand([int(each.max()) + 2 for each in corners], generator=generator).double()
    y, x = places[0] - corners[0], places[1] - corners[1]
    total = torch.zeros(sides, dtype=torch.float64)
    for down in (0, 1):
        for right in (0, 1):
            angle = angles[corners[0] + down][:, corners[1] + right]
            slope = (y - down)[:, None] * angle.sin() + (x - right) * angle.cos()
            total += _fade(1 - (y - down).abs())[:, None] * _fade(1 - (x - right).abs()) * slope
    return total


def _fade(t: Tensor) -> Tensor:
    return t**3 * (6 * t**2 - 15 * t + 10)


def gabor(
    shape: tuple[int, int, int], wavelength: float = 8.0, sigma: float = 4.0, angle: float = 0.0, sides: int = 1,
    density: float = 0.05, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Return the sign of Gabor noise: random points, each a patch of waves, the same in all channels (Co et al., 2019).

    The authors put equally many points into each cell of a grid; here each pixel has one or none by chance, and the
    noise goes on periodically at the borders. Raises ValueError where no point is drawn.

    wavelength: of the waves. sigma: the size of a patch, a Gaussian's. angle: of the waves, in radians, from rows on.
    sides: in how many directions there are waves, spread evenly. density: points for each pixel.
    """
    finite(wavelength=wavelength, sigma=sigma, angle=angle, density=density)
    if whole(sides=sides)["sides"] < 1 or not (wavelength > 0 and sigma > 0 and 0 < density <= 1):
        raise ValueError(
            f"sides must be at least 1, wavelength and sigma positive and density lie in (0, 1], not {sides}, "
            f"{wavelength}, {sigma} and {density}"
        )
    generator = torch.Generator().manual_seed(check_seed(seed))
    _, height, width = shape
    there = torch.rand(height, width, generator=generator) < density
    if not there.any():
        raise ValueError(f"density={density} leaves no point in {height} x {width} pixels with seed={seed}")
    points = there * (2 * torch.rand(height, width, generator=generator).double() - 1)
    reach = [torch.arange(side, dtype=torch.float64) for side in (height, width)]
    y, x = (torch.minimum(each, len(each) - each) for each in reach)  # the patch around the corner, for the transform
    y, x = torch.where(reach[0] > height / 2, -y, y)[:, None], torch.where(reach[1] > width / 2, -x, x)
    directions = [angle + math.pi * k / sides for k in range(sides)]
    waves = sum(torch.cos(2 * math.pi * (y * math.cos(a) + x * math.sin(a)) / wavelength) for a in directions)
    patch = torch.exp(-(y**2 + x**2) / (2 * sigma**2)) * waves
    noise = torch.fft.irfft2(torch.fft.rfft2(points) * torch.fft.rfft2(patch), s=(height, width))
    low, high = noise.aminmax()
    return _signs(noise >= (low + high) / 2, shape)


def _cells(shape: tuple[int, int, int], size: int) -> tuple[Tensor, Tensor]:
    """In which square each row and each column is."""
    if whole(size=size)["size"] < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    _, height, width = shape
    return torch.arange(height) // size, torch.arange(width) // size


def _signs(positive: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return torch.where(positive, 1.0, -1.0).expand(1, *shape).clone()
