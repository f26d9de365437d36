"""Perturbations that were released with the papers, and the papers' tables as data.

Every release has its own layout: the order of the axes, the order of the colours, and the unit. A layout is written
here as for instance "WHC-BGR-255": columns, rows, channels; blue first; the budget 10 is 10/255 of the book's unit.
Read the wrong way round, a perturbation has the right shape and norm, and fools less.
"""

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uaplib import foreign, provenance
from uaplib.balls import NormBall
from uaplib.checks import real
from uaplib.files import data_folder, download, sha256
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation
from uaplib.releases import LAYOUTS, RELEASES, Release

if TYPE_CHECKING:
    import pandas as pd

EPS_255 = 10  # the papers' budget
TABLES = (
    "uap-transfer", "gd-uap-range-prior-transfer", "gd-uap-priors", "gd-uap-segmentation", "gd-uap-depth",
    "later-methods",
)  # fmt: skip


def load(name: str) -> UniversalPerturbation:
    """Return a released perturbation by its name in `RELEASES`, for instance "uap-CaffeNet", from the data folder.

    Where it is not there, it is downloaded. The file's SHA-256 is checked, then what was read from it: its range, its
    saturation, its l2 norm and its digest. Raises ValueError for an unknown name (nearest names given) or a file that
    is not what it says, FileNotFoundError when it can be had nowhere, ImportError where h5py is needed and missing.
    """
    release = RELEASES[check_name("name", name, RELEASES)]
    path = file_of(name)
    path = path if path.exists() else download(release.url, f"sha256:{release.sha256}", path)
    if sha256(path) != release.sha256:
        raise ValueError(f"{path} is damaged or another file: it does not have the SHA-256 of {name}")
    ball, about = ball_of(name), {"method": release.method, "source": release.network}
    values = _pixels(foreign.array(path), path, release.layout, scale=release.scale)
    found = _in_its_ball(values, ball, path, layout=release.layout, **about)
    _check_facts(found, release, path)
    return found


def file_of(name: str) -> Path:
    """Return where in the data folder the released perturbation `name` is looked for, and put by `load`."""
    return data_folder() / "published-perturbations" / RELEASES[name].file


def ball_of(name: str) -> NormBall:
    """Return the budget of the released perturbation `name`."""
    return NormBall(float(RELEASES[name].norm), RELEASES[name].budget_255 / 255)


def read(
    path: str | Path,
    layout: str,
    *,
    eps_255: float = EPS_255,
    eps_l2: float | None = None,
    std: Sequence[float] | None = None,
    zero: float | None = None,
    scale: float = 1.0,
    method: str = "published",
    source: str = "",
) -> UniversalPerturbation:
    """Return the perturbation in a file of someone else's, as the book's own are.

    path: of a kind that `uaplib.foreign.array` reads. layout: one of `LAYOUTS`, axes, colours and unit: "HWC-BGR-255"
    are rows, columns, channels, blue first, 10/255 written as 10; the unit "1" is the book's, and "std" that of a
    network's input, for values that were divided by `std`, three numbers for red, green and blue. A first axis of
    length one is dropped. eps_255: the l-infinity budget; eps_l2: instead, an l2 budget in units of [0, 1]. zero,
    scale: the value that stands for no change is taken off, and the rest multiplied; by default 128 of a PNG and 0 of
    all else, and 1. A PNG that was stretched to its whole range has zero=127.5 and scale=eps_255 / 127.5.

    What half precision has rounded out of the budget is projected onto it again.

    Raises FileNotFoundError when there is no such file, ImportError where h5py is needed and missing, ValueError or
    TypeError for a bad argument, and ValueError when the file cannot be read, has another shape than the layout says,
    is not finite, exceeds the budget or does not use half of it (both are signs of another unit).
    """
    check_name("layout", layout, LAYOUTS)
    given = real(scale=scale, **({} if zero is None else {"zero": zero}))
    found = foreign.array(path)
    values = _pixels(found, Path(path), layout, std=std, **given)
    ball = NormBall(np.inf, eps_255 / 255) if eps_l2 is None else NormBall(2, eps_l2)
    if _is_half(found) and ball.norm(values) <= (1 + torch.finfo(torch.bfloat16).eps) * ball.eps:
        values = ball.project(values)
    return _in_its_ball(values, ball, Path(path), layout=layout, method=method, source=source)


def _is_half(values: np.ndarray) -> bool:
    """Whether half precision can hold the values."""
    exact = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return any(torch.equal(exact, exact.to(dtype).float()) for dtype in (torch.float16, torch.bfloat16))


def _pixels(
    values: np.ndarray,
    path: Path,
    layout: str,
    *,
    std: Sequence[float] | None = None,
    zero: float | None = None,
    scale: float = 1.0,
) -> torch.Tensor:
    """The values of a file as (1, 3, H, W), float32, red first, in the book's unit."""
    axes, colours, unit = layout.split("-")
    if (unit == "std") != (std is not None):
        raise ValueError(f"layout={layout!r} {'needs' if unit == 'std' else 'takes no'} std, the network's divisors")
    if std is not None and not (len(std) == 3 and all(value > 0 for value in std)):
        raise ValueError(f"std must be three numbers above 0, for red, green and blue, not {std}")
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or values.shape[axes.index("C")] != 3:
        raise ValueError(f"{path} has shape {values.shape}, which is not three channels in the layout {layout}")
    zero = (128 if path.suffix.lower() == ".png" else 0) if zero is None else zero
    values = scale * (values.transpose([axes.index(axis) for axis in "CHW"]).astype(np.float64) - zero)
    values = values if colours == "RGB" else values[::-1]
    divisor = {"255": 255, "1": 1}.get(unit) or 1 / np.reshape(std, (3, 1, 1))
    return torch.from_numpy(np.ascontiguousarray(values / divisor, np.float32))[None]


def _in_its_ball(
    values: torch.Tensor, ball: NormBall, path: Path, *, layout: str, method: str, source: str
) -> UniversalPerturbation:
    """The perturbation, if it uses at least half of its budget and no more than all of it."""
    norm = ball.norm(values).item()
    if not 0.5 * ball.eps <= norm <= 1.00001 * ball.eps:  # false for NaN, too
        raise ValueError(
            f"{path} {_size(norm, ball)} in the layout {layout}, and the budget is {_budget(ball)}: "
            "another unit, another budget, or not a perturbation"
        )
    return UniversalPerturbation(values, ball, method, source)


def _size(norm: float, ball: NormBall) -> str:
    return f"holds values up to {255 * norm:g}/255" if ball.p != 2 else f"has the l2 norm {norm:g}"


def _budget(ball: NormBall) -> str:
    return f"{255 * ball.eps:g}/255" if ball.p != 2 else f"{ball.eps:g}"


_AXES = {"H": "rows", "W": "columns", "C": "colours"}
_UNITS = {
    "255": "10/255 is written as 10",
    "1": "10/255 is written as 0.039",
    "std": "10/255 is written as about 0.17: divided by the network's std",
}
_PLAUSIBLE_255 = 0.3, 64  # root mean square of a perturbation that is neither nothing nor a picture of its own
_TYPICAL_STD = 0.226  # of a channel of ImageNet's photographs


def guess(path: str | Path) -> "pd.DataFrame":
    """Return all plausible readings of a file, and what each would mean: a row for each layout.

    Nothing in an array says whether rows or columns come first, or red or blue. Columns: layout, as `read` takes it;
    zero and scale, as `read` takes them; axes and first, in words; height and width; largest_255, the largest value in
    255ths, and l2_255, the l2 norm, by which published ones are recognised; and unit, in words. Of layouts in units of
    a network's input these two are about right, for the std is not known. Where the largest value is 1, or the file is
    a PNG, it may have been stretched: then the budget is taken to be 10/255.

    Raises as `read` does, and ValueError when no reading gives a perturbation.
    """
    import pandas as pd

    path = Path(path)
    values = foreign.array(path)
    rows = [row for layout in LAYOUTS for row in _readings(values, path, layout)] if values.size else []
    if not rows:
        largest = f", largest value {np.abs(values).max():g}" if values.size else ""
        raise ValueError(f"{path} is no perturbation in any layout: shape {values.shape}{largest}")
    return pd.DataFrame(rows)


def _readings(values: np.ndarray, path: Path, layout: str) -> Iterator[dict]:
    """What a file is in one layout, where that is plausible."""
    axes, colours, unit = layout.split("-")
    for how in _ways(values, path, unit):
        try:
            found = _pixels(values, path, layout, std=[_TYPICAL_STD] * 3 if unit == "std" else None, **how)
        except ValueError:
            continue
        largest, size = 255 * found.abs().max().item(), 255 * found.square().mean().sqrt().item()
        if _PLAUSIBLE_255[0] <= size <= _PLAUSIBLE_255[1] and largest <= 255:
            yield {
                "layout": layout, **how, "axes": ", ".join(_AXES[axis] for axis in axes),
                "first": "red" if colours == "RGB" else "blue", "height": found.shape[2], "width": found.shape[3],
                "largest_255": round(largest, 2), "l2_255": round(255 * found.norm().item(), 1), "unit": _UNITS[unit],
            }  # fmt: skip


def _ways(values: np.ndarray, path: Path, unit: str) -> list[dict]:
    """How values may have been coded, as `zero` and `scale` of `read`."""
    plain, stretched = {"zero": 0, "scale": 1.0}, {"zero": 0, "scale": float(EPS_255)}
    if path.suffix.lower() == ".png":  # whole numbers, of 255
        return [{"zero": 128, "scale": 1.0}, {"zero": 127.5, "scale": EPS_255 / 127.5}] if unit == "255" else []
    return [plain, stretched] if unit == "255" and np.isclose(np.abs(values).max(), 1) else [plain]


def _check_facts(found: UniversalPerturbation, release: Release, path: Path) -> None:
    saturated, l2_255 = found.saturation or 0, 255 * found.delta.norm().item()
    released = release.saturation or 0
    if abs(saturated - released) > 1e-3 or abs(l2_255 - release.l2_255) > 1:
        raise ValueError(
            f"{path}: {saturated:.1%} of the values are saturated and the l2 norm is {l2_255:.0f}/255, "
            f"but {released:.1%} and {release.l2_255:.0f}/255 were released"
        )
    if provenance.sha256_of(found.delta) != release.delta_sha256:
        raise ValueError(f"{path} was read otherwise than results with it on record: another order, or other numbers")


def reproduction() -> "pd.DataFrame":
    """Return what the releases do to the Caffe GoogLeNet, which `benchmarks/reproduction.py` has measured.

    A row for each perturbation, layout in which its file was read, set of photographs, way of making them square, and
    whether image plus perturbation was clipped: n, the fooling rate and its 95 % interval in per cent, and the first
    digits of the digests of perturbation, photographs and weights.
    """
    return _read_table("reproduction", keep_default_na=False)


def table(name: str) -> "pd.DataFrame":
    """Return a table of the papers, all of perturbations of 10/255, by its name in `TABLES`.

    Fooling rates, in per cent of ImageNet's 50,000 validation images. "uap-transfer" (Moosavi-Dezfooli et al., 2017,
    table 2) and "gd-uap-range-prior-transfer" (Mopuri et al., project page): rows are crafted on, columns are fooled.
    "gd-uap-priors": networks and priors. "later-methods": what came afterwards, each on its own network.

    Other tasks (Mopuri et al., 2018). "gd-uap-segmentation": mean IoU in per cent on PASCAL VOC. "gd-uap-depth": the
    measures of `uaplib.depth` on KITTI, errors and shares of pixels, not in per cent.

    Raises ValueError for another name.
    """
    return _read_table(check_name("name", name, TABLES), index_col=0)


def _read_table(name: str, **how: Any) -> "pd.DataFrame":
    import pandas as pd

    file = resources.files("uaplib") / "tables" / f"{name}.csv"
    with file.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, **how)
