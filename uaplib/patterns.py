"""Patterns that nobody optimised: chessboards, stripes, waves and random blocks, baselines beside noise.

Each is a float32 tensor (1, C, H, W) of values in [-1, 1], to be scaled to a budget. Sizes are in pixels of the image
that the network sees. A chessboard of single pixels is the highest frequency in both directions.
"""

import math

import torch
from torch import Tensor

from uaplib.checks import check_seed, true_or_false, whole
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


def _cells(shape: tuple[int, int, int], size: int) -> tuple[Tensor, Tensor]:
    """In which square each row and each column is."""
    if whole(size=size)["size"] < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    _, height, width = shape
    return torch.arange(height) // size, torch.arange(width) // size


def _signs(positive: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return torch.where(positive, 1.0, -1.0).expand(1, *shape).clone()
