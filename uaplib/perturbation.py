"""A universal perturbation together with everything needed to know what it is."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from uaplib import foreign, provenance
from uaplib.balls import NormBall
from uaplib.checks import check_images, check_seed, check_tensor, plain
from uaplib.files import write_atomically
from uaplib.names import check_name

FITS = ("tiled", "resized")  # how a perturbation comes to another size
_KEY = "uaplib"  # safetensors orders several metadata keys at random; with one key the bytes are stable


@dataclass
class UniversalPerturbation:
    """One perturbation for all images, with its provenance.

    delta: (1, C, H, W), floating point, in pixel units of [0, 1]. ball: the budget, which delta keeps. source: the
    name of the model it was crafted on, and source_sha256 the digest of that model's weights. parameters: those of
    the method, whose `version` counts changes that give other perturbations. history: one dictionary per pass or
    iteration. Raises ValueError when delta has another shape, is not finite, or exceeds the budget.
    """

    delta: Tensor
    ball: NormBall
    method: str
    source: str = ""
    source_sha256: str = ""
    seed: int | None = None
    parameters: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=provenance.versions)
    run: dict = field(default_factory=dict)
    version: int = 1

    def __post_init__(self):
        """Check the perturbation against its budget, and that its record can be written as JSON."""
        check_tensor("delta", self.delta)
        self.seed = None if self.seed is None else check_seed(self.seed)
        if len(self.delta) != 1:
            raise ValueError(f"delta must have shape (1, C, H, W), not {tuple(self.delta.shape)}")
        if not self.ball.contains(self.delta.float(), tolerance=_tolerance(self.delta)):
            raise ValueError(f"delta has norm {self.ball.norm(self.delta).item():g}, out of its budget {self.ball}")

    @property
    def identity(self) -> dict:
        """All that it depends on, and that tells it from the perturbation of another run, as a JSON-safe dictionary."""
        shape, parameters = self.delta.shape, self.parameters
        return identity(self.method, self.ball, self.source_sha256, self.seed, parameters, shape, self.version)

    @property
    def key(self) -> str:
        """The digest of its identity; see `uaplib.provenance.key`."""
        return provenance.key(**self.identity)

    @property
    def saturation(self) -> float | None:
        """The share of values that use the whole l-infinity budget, in [0, 1]; None for an l2 ball."""
        return None if self.ball.p == 2 else saturation(self.delta, self.ball)

    def apply(self, images: Tensor, clip: bool = True) -> Tensor:
        """Return images + delta, clipped to [0, 1] unless `clip` is False.

        Raises ValueError for images that are not in [0, 1] or of another size (see `fitted`).
        """
        check_images(images)
        if images.shape[1:] != self.delta.shape[1:]:
            raise ValueError(
                f"delta is {tuple(self.delta.shape[1:])}, images are {tuple(images.shape[1:])}; "
                "use perturbation.fitted(images) for another input size"
            )
        perturbed = images + self.delta.to(images)
        return perturbed.clamp(0, 1) if clip else perturbed

    def resized(self, height: int, width: int, mode: str = "bilinear") -> "UniversalPerturbation":
        """Return a copy for another input size, projected onto the same ball, with the change on record."""
        delta = self.ball.project(F.interpolate(self.delta, (height, width), mode=mode, antialias=mode != "nearest"))
        change = {"from": list(self.delta.shape[-2:]), "to": [height, width], "mode": mode}
        return UniversalPerturbation(**{**vars(self), "delta": delta, "run": {**self.run, "resized": change}})

    def tiled(self, height: int, width: int) -> "UniversalPerturbation":
        """Return a copy for another input size, projected onto the same ball, with the change on record.

        Repeated side by side from the upper left, and cut: unlike `resized`, it keeps fine patterns pixel for pixel.
        """
        down, across = (-(-side // own) for side, own in zip((height, width), self.delta.shape[2:], strict=True))
        delta = self.ball.project(self.delta.repeat(1, 1, down, across)[:, :, :height, :width])
        change = {"from": list(self.delta.shape[-2:]), "to": [height, width], "mode": "tiled"}
        return UniversalPerturbation(**{**vars(self), "delta": delta, "run": {**self.run, "resized": change}})

    def fitted(self, images: Tensor, fit: str = "tiled") -> "UniversalPerturbation":
        """Return the perturbation in the size of the images (N, C, H, W): itself, or another by `fit`, one of `FITS`.

        Raises ValueError for another number of channels, and for an unknown `fit`.
        """
        check_name("fit", fit, FITS)
        channels, *size = images.shape[1:]
        if self.delta.shape[1] != channels:
            raise ValueError(
                f"a perturbation of {self.delta.shape[1]} channels (crafted on {self.source or 'nothing'}) does not "
                f"fit images of {channels}"
            )
        if list(self.delta.shape[2:]) == size:
            return self
        return self.tiled(*size) if fit == "tiled" else self.resized(*size)

    def save(self, path: str | Path) -> None:
        """Write the perturbation as safetensors, atomically; the provenance is its one metadata entry, in JSON.

        Raises OSError when the folder cannot be written or the disk is full, TypeError when a parameter is not
        JSON-safe.
        """
        record = {name: value for name, value in vars(self).items() if name != "delta"}
        record["ball"] = {name: str(value) for name, value in asdict(self.ball).items()}
        text = json.dumps(record, sort_keys=True, allow_nan=False, default=_number)
        content = save({"delta": self.delta.detach().cpu().contiguous()}, metadata={_KEY: text})
        write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))

    @classmethod
    def load(cls, path: str | Path) -> "UniversalPerturbation":
        """Read a perturbation written by `save`.

        Raises FileNotFoundError when there is no such file, ValueError when it is truncated, foreign, or of a later
        version.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no perturbation at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads((file.metadata() or {})[_KEY])
                delta = file.get_tensor("delta")
            record["ball"] = NormBall(**{name: float(value) for name, value in record["ball"].items()})
            known = {field.name for field in fields(cls)}
            found = cls(delta=delta, **{name: value for name, value in record.items() if name in known})
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f": {error}" if type(error) is ValueError else ""  # the others speak of what is inside
            raise ValueError(
                f"{path} is not a perturbation written by uaplib, or it is damaged{why}{_hint(path)}"
            ) from error
        if unknown := record.keys() - known:
            raise ValueError(
                f"{path} was written by a later version of uaplib ({found.versions.get('uaplib')}), which also keeps "
                f"{', '.join(sorted(unknown))}; update uaplib to read it"
            )
        return found


def _hint(path: Path) -> str:
    """What to do about a perturbation of someone else's."""
    program = "" if path.suffix == ".safetensors" else foreign.PROGRAMS.get(path.suffix.lower())
    return f".\nIt seems to be a file of {program}: bring it in by `uaplib import {path}`" if program else ""


def identity(
    method: str,
    ball: NormBall,
    source_sha256: str,
    seed: int | None,
    parameters: dict,
    shape: Sequence[int],
    version: int = 1,
) -> dict:
    """Return what a perturbation depends on, JSON-safe: two runs with the same identity give the same perturbation.

    parameters: all settings of the method, and the number and digest of the images that it saw. shape: (1, C, H, W);
    a network's weights do not know the size of its images.
    """
    budget = {name: str(value) for name, value in asdict(ball).items()}
    record = {
        "method": method, "version": version, "ball": budget, "source_sha256": source_sha256, "seed": seed,
        "parameters": parameters, "shape": list(shape),
    }  # fmt: skip
    return json.loads(json.dumps(record, default=_number))


def _number(value: object) -> int | float | str | None:
    """A number of numpy or PyTorch as Python's, for JSON."""
    return plain(value=value)["value"]


def _tolerance(delta: Tensor) -> float:
    """By how much, relative to the budget, rounding may take a perturbation out of it."""
    return max(1e-5, torch.finfo(delta.dtype).eps)


def saturation(delta: Tensor, ball: NormBall) -> float:
    """Return the share of values that use the whole of an l-infinity budget, in [0, 1]."""
    return (delta.abs() >= (1 - 1e-6) * ball.eps).float().mean().item()


def noise(ball: NormBall, shape: tuple[int, int, int], seed: int = 0) -> UniversalPerturbation:
    """Return random noise of shape (C, H, W) that uses the whole budget: the baseline beside every rate."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    return UniversalPerturbation(ball.sample_boundary((1, *shape), generator), ball, method="noise", seed=seed)
