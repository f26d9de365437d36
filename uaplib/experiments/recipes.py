"""Recipes: how the book's perturbations are crafted, kept, found again, and measured on their own network."""

import json
import math
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from uaplib import data, features, models, perturbation, provenance
from uaplib.attacks import METHODS
from uaplib.attacks.methods import Method
from uaplib.balls import NormBall
from uaplib.cells import cell_key, new_cell
from uaplib.checks import check_seed, whole
from uaplib.devices import pick_device
from uaplib.experiments import registry, store
from uaplib.experiments.images import Record, at_hand, images_for, images_from, of_the_book
from uaplib.files import check_writable, write_text
from uaplib.journal import Journal
from uaplib.metrics.tasks import TASKS
from uaplib.models.registry import SEPARATOR
from uaplib.names import check_name
from uaplib.perturbation import FITS, UniversalPerturbation
from uaplib.priors import NOISE_PICTURES

SELECTION_IMAGES = 100
_SELECTIONS = (NOISE_PICTURES, "images")
_LONGEST_SETTINGS = 60  # characters in a name
_ROOM = 2**22  # bytes that a perturbation and its record may need
OPTIONS = {"images": "images", "max_passes": "passes", "target_rate": "target-rate"}  # of the command line, by setting


@cache
def weights_sha256(model: str) -> str:
    """Return the digest of the named model's weights, computed once where its row does not have it.

    For that of an ensemble no network needs to be at hand whose row has its digest.
    """
    members = model.split(SEPARATOR)
    if len(members) > 1:
        return provenance.together([weights_sha256(each) for each in members])
    return models.find(model).weights_sha256 or provenance.weights_sha256(models.load(model))


class Measured(NamedTuple):
    """What a perturbation does to the network that it was crafted on, and the record of its crafting.

    evaluation: of the network's task (`uaplib.metrics.tasks`). record: see `Recipe.record`.
    """

    evaluation: Any
    record: dict


@dataclass(frozen=True)
class Recipe:
    """How to craft one perturbation.

    method: a row of `uaplib.attacks.METHODS`. settings: what differs from the method's defaults, by its own names, and
    for a method that sees data `images` (how many) and `role` ("crafting", or of labelled scenes "foreground"); for one
    that chooses its iterate `selection`: "noise pictures" or "images". Settings that say the default are dropped.

    Raises ValueError or TypeError for an unknown method, model or setting (nearest names given), a bad value, a
    network of which the method can make nothing, and a budget of nothing or of more than the whole range of a pixel.
    """

    method: str
    model: str
    ball: NormBall
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        """Check names, numbers and budget."""
        object.__setattr__(self, "seed", check_seed(self.seed))
        row = METHODS[check_name("method", self.method, METHODS)]
        models.check_model_name(self.model)
        if not self.ball.eps > 0 or (self.ball.p == math.inf and self.ball.eps > 1):
            raise ValueError(f"the budget must be more than 0 and, for l∞, at most 255/255, not {self.ball}")
        if self.ball.p not in row.norms:
            raise ValueError(f"method={self.method!r} takes no ball like {self.ball}")
        if models.says(self.model) not in row.tasks:
            raise ValueError(
                f"method={self.method!r} is for networks that say: {', '.join(row.tasks)}; {self.model} says "
                f"{models.says(self.model)}"
            )
        own, defaults = self._checked(dict(self.settings)), self._checked({})
        object.__setattr__(self, "settings", {name: own[name] for name in self.settings if own[name] != defaults[name]})

    def _checked(self, settings: dict[str, Any]) -> dict[str, Any]:
        """All settings, the method's and those of the data, after the defaults are filled in."""
        found = {}
        if self.row.sees != "nothing":
            roles = set(data.DATA_SETS[models.find(self.model).data_set].roles) - {"selection", "evaluation"}
            found |= whole(images=settings.pop("images", self.row.images))
            found["role"] = check_name("role", settings.pop("role", "crafting"), sorted(roles))
            if found["images"] < 1:
                raise ValueError(f"images must be at least 1, not {found['images']}")
        if self.row.selects:
            found["selection"] = check_name("selection", settings.pop("selection", NOISE_PICTURES), _SELECTIONS)
        return found | self.row.settings(self.ball, **settings)

    @property
    def row(self) -> Method:
        """The row of the method."""
        return METHODS[self.method]

    @cached_property
    def all_settings(self) -> dict[str, Any]:
        """All settings, JSON-safe, after the defaults are filled in."""
        return self._checked(dict(self.settings))

    @property
    def sees(self) -> str:
        """What it sees of the data, one of `uaplib.attacks.methods.SEES`: some settings ask for more than the method.

        With a target it is less: labels play no part then.
        """
        settings = self.all_settings
        if settings.get("target") is not None and settings.get("sources") is None:
            return "images"
        return "labels" if settings.get("labels") == "truth" else self.row.sees

    @property
    def images(self) -> int | None:
        """How many images it crafts on at most; None for a method that sees none."""
        return self.all_settings.get("images")

    @cached_property
    def preset(self) -> str:
        """The name of the preset whose settings it has; empty for the default, and for settings of its own."""
        same = (
            name
            for name, changes in self.row.presets.items()
            if self.settings and _can_be(self.method, self.model, self.ball, changes) == self.settings
        )
        return next(same, "")

    @property
    def name(self) -> str:
        """The artifact's name, for instance 'uap-resnet-mini-linf24-n100-p5-s0'."""
        budget = f"l2_{self.ball.eps:g}" if self.ball.p == 2 else f"linf{self.ball.eps * 255:g}"
        parts = [f"{letter}{self.all_settings[name]}" for name, letter in self.row.name_parts.items()]
        parts += [self.preset] if self.preset else _listed(self._unnamed())
        return "-".join([self.method, self.model.replace(":", "-"), budget, *parts, f"s{self.seed}"])

    def _unnamed(self) -> dict[str, Any]:
        """Settings of its own that neither a preset nor a letter stands for."""
        named = self.settings if self.preset else self.row.name_parts
        return {name: value for name, value in sorted(self.settings.items()) if name not in named}

    @property
    def place(self) -> str:
        """Its place in a folder of artifacts."""
        return f"{self.model.replace(':', '-')}/{self.name}.safetensors"

    @property
    def record_place(self) -> str:
        """The place of its record, where that is kept without it."""
        return self.place.removesuffix("safetensors") + "json"

    @property
    def command(self) -> str:
        """The command that crafts it."""
        budget = f"--eps-255 {self.ball.eps * 255:g}" if self.ball.p == math.inf else f"--eps-l2 {self.ball.eps:g}"
        options = [f"--{OPTIONS[name]} {self.all_settings[name]}" for name in self.row.name_parts]
        options += [f"--variant {self.preset}"] if self.preset else []
        for name, value in self._unnamed().items():
            setting = shlex.quote(f"{name}={json.dumps(value)}")
            options.append(f"--{OPTIONS[name]} {value}" if name in OPTIONS else f"--set {setting}")
        words = ["uaplib craft", self.method, "--model", self.model, budget, *options, "--seed", str(self.seed)]
        return " ".join(words)

    def craft(
        self, progress: bool = False, checkpoint: Path | None = None, device: str | torch.device = "cpu"
    ) -> UniversalPerturbation:
        """Run the recipe, with model and images on `device`, see `uaplib.devices.pick_device`."""
        device = pick_device(device)
        model = models.load(self.model, device)
        settings = dict(self.all_settings)
        chosen = {name: settings.pop(name) for name in ("images", "role", "selection") if name in settings}
        seen = {}
        if self.row.sees != "nothing":
            seen["images"], labels = self._on(device, chosen["role"], self._count())
            if self.row.held_out or self.sees == "labels":
                seen["labels"] = labels
            if self.row.held_out:
                seen["held_out"] = self._on(device, "evaluation", self.row.held_out)
        if chosen.get("selection") == "images":
            seen["selection"], _ = self._on(device, "selection", SELECTION_IMAGES)
        options = {"seed": self.seed, "source": self.model, "checkpoint": checkpoint, "progress": progress}
        return self.row.craft(model, self.ball, settings, seen, **options)

    def _on(self, device: torch.device, role: str, count: int) -> list[torch.Tensor]:
        return [tensor.to(device) for tensor in images_for(self.model, role, count)]

    def _count(self) -> int:
        """How many images it crafts on: by default, where its name does not say how many, at most what there is."""
        there = data.most(models.find(self.model).data_set, self.all_settings["role"])
        if self.images > there and ("images" in self.settings or "images" in self.row.name_parts):
            origin = images_from(self.model, self.all_settings["role"])
            raise ValueError(f"images={self.images} is more than the {there} crafting images there are, {origin}")
        return min(self.images, there)

    def identity(self, record: Record = at_hand) -> dict:
        """Return what the perturbation depends on: see `uaplib.perturbation.identity`.

        record: from a model, a role and a number of images to what is on record of them: `at_hand`, or `of_the_book`.
        """
        parameters = dict(self.all_settings)
        if not self.row.optimised:
            about = {"source_sha256": "", "shape": self._shape(), "version": self.row.version}
            return perturbation.identity(self.method, self.ball, seed=self.seed, parameters=parameters, **about)
        if "layers" in parameters:
            parameters["layers"] = _layers(self.model, _hashable(parameters["layers"]))
        if parameters.get("selection") == "images":
            found = record(self.model, "selection", SELECTION_IMAGES)
            parameters |= {"selection": f"{found['images']} images", "selection_sha256": found["images_sha256"]}
        if self.row.sees != "nothing":
            found = record(self.model, parameters.pop("role"), self.images)
            parameters |= {"images": found["images"], "images_sha256": found["images_sha256"]}
            if self.sees == "labels":
                parameters["truth_sha256"] = found["truth_sha256"]
        about = {"source_sha256": weights_sha256(self.model), "shape": self._shape(), "version": self.row.version}
        return perturbation.identity(self.method, self.ball, seed=self.seed, parameters=parameters, **about)

    def _shape(self) -> list[int]:
        """The shape of the perturbation: that of one of the network's images."""
        return [1, *models.find(self.model).shape]

    def key(self, record: Record = at_hand) -> str:
        """Return the digest of its identity, which is the key of what it crafts."""
        return provenance.key(**self.identity(record))

    def matches(self, found: UniversalPerturbation) -> bool:
        """Return whether it depends on what this recipe does, on the images of the book or on those at hand.

        Raises FileNotFoundError or ValueError when it cannot be told: the images, or so many, are in neither.
        """
        try:
            if self.key(of_the_book) == found.key:
                return True
        except KeyError:  # the book knows no such images
            return self.key() == found.key
        try:
            return self.key() == found.key
        except (FileNotFoundError, ValueError):  # not here, or too few: then the book's count
            return False

    def find(self, places: Iterator[Path] | None = None) -> UniversalPerturbation | None:
        """Return the artifact, the first that is there; None when it is missing or out of date.

        Out of date is what was made from other weights, with other settings, or on other images or fewer of them; a
        warning says so, and it stays where it is. Noise and patterns are not kept: seed and settings are as good.
        """
        if not self.row.optimised:  # which needs no network, only the size of its images
            return self.row.attack.make(self.ball, tuple(self._shape()[1:]), self.all_settings, self.seed)
        for path in places or store.places(self.place):
            if path.is_file():
                found = UniversalPerturbation.load(path)
                if self.matches(found):
                    return found
                warnings.warn(
                    f"{path} is not used: it was crafted from other weights, settings or images than asked for",
                    stacklevel=2,
                )
        return None

    def load_or_craft(self, progress: bool = True, device: str | torch.device = "auto") -> UniversalPerturbation:
        """Return the artifact, wherever it is kept; where it is not, craft it on `device` and keep it beside the data.

        It lies on the CPU, as one that is loaded. Interrupted crafting goes on in the next call. Warns when nothing can
        be kept, and, where the book has the artifact and it could not be fetched, how long crafting takes instead.
        """
        if found := self.find():
            return found
        self._say_what_crafting_takes()
        path = store.own_folder() / self.place
        writable = False
        with _what_is_not_kept_is_a_warning():
            check_writable(path, _ROOM)
            writable = True
        if not writable:
            return _on_the_cpu(self.craft(progress, device=device))
        crafted = _on_the_cpu(self._craft_resumably(path, progress, device))
        with _what_is_not_kept_is_a_warning():
            if path.exists():  # out of date, but perhaps not for ever: the images of then may come back
                path.replace(path.with_name(f"{path.name}.old"))
            self._keep(crafted, path)
        return crafted

    def _say_what_crafting_takes(self) -> None:
        """Warn when the perturbation, or the record of one that is not kept, could not be fetched."""
        for place in (self.place, self.record_place):
            if why := store.failure(place):
                took, chapters = registry.entries()[place].seconds, registry.entries()[place].chapters
                wanted = f"--chapter {chapters[0]}" if chapters else "--all"
                warnings.warn(
                    f"{self.name} could not be fetched ({why}) and is crafted now, which took {_duration(took)} on one "
                    f"core. To avoid it: `uaplib get {wanted}` where there is a network, or UAPLIB_ARTIFACTS=FOLDER",
                    stacklevel=3,
                )

    def craft_into(
        self, path: Path, progress: bool = False, device: str | torch.device = "cpu"
    ) -> UniversalPerturbation:
        """Craft, and keep the result at `path`; until then, a checkpoint beside it, from which the next call goes on.

        Raises OSError at once when the file could not be written in the end.
        """
        check_writable(path, _ROOM)
        crafted = self._craft_resumably(path, progress, device)
        self._keep(crafted, path)
        return crafted

    def _craft_resumably(self, path: Path, progress: bool, device: str | torch.device = "cpu") -> UniversalPerturbation:
        crafted = self.craft(progress, _checkpoint(path), device)
        if self.row.sees != "nothing":
            crafted.run["images_from"] = images_from(self.model, "crafting")
        return crafted

    def _keep(self, crafted: UniversalPerturbation, path: Path) -> None:
        crafted.save(path)
        if self.row.optimised:  # what is not has no checkpoint: one that is there is another's
            _checkpoint(path).unlink(missing_ok=True)

    def record(self, crafted: UniversalPerturbation) -> dict:
        """Return, JSON-safe, what is to be known of a crafted perturbation without itself."""
        return {
            "recipe": self.name,
            "command": self.command,
            "key": crafted.key,
            "source_sha256": crafted.source_sha256,
            "delta_sha256": provenance.sha256_of(crafted.delta),
            "shape": list(crafted.delta.shape),
            "saturation": crafted.saturation,
            "l2_norm": crafted.delta.norm().item(),
            "history": [entry for entry in crafted.history if "rate" in entry],
            "run": crafted.run,
        }

    def keep_record(self, crafted: UniversalPerturbation, folder: Path) -> None:
        """Write the record of a perturbation that is not kept itself into its place in a folder of artifacts."""
        write_text(folder / self.record_place, json.dumps(self.record(crafted), indent=2) + "\n")

    def find_record(self) -> dict | None:
        """Return the record of its perturbation, from the artifact or kept without it; None when it is not there.

        Raises ValueError for a damaged record.
        """
        for path in store.places(self.record_place):
            if path.is_file():
                try:
                    found = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise ValueError(f"{path} is damaged: {error}") from error
                if any(key == found.get("key") for key in _all_that_can_be(self.key)):
                    return found
        kept = self.find()
        return self.record(kept) if kept else None

    def measure(self, crafted: UniversalPerturbation, clip: bool = True, progress: bool = False) -> Any:
        """Return what the perturbation does to its own network on the evaluation images."""
        evaluate = TASKS[models.says(self.model)].evaluate
        examples = images_for(self.model, "evaluation")
        return evaluate(models.load(self.model), *examples, crafted.delta, clip=clip, progress=progress)

    def measured(self) -> Measured:
        """Return what the artifact does: from its cell; where that was not kept, crafted and measured now."""
        if found := self.find_measured():
            return found
        crafted = self.load_or_craft()
        return Measured(self.measure(crafted), self.record(crafted))

    def find_measured(self, journal: Journal | None = None) -> Measured | None:
        """Return what was kept of its perturbation and of its cell.

        None when one is missing, or is about other weights, settings or images than the book's and those at hand.
        """
        record = self.find_record()
        if record is None:
            return None
        journals = [journal] if journal else [_journal(place) for place in store.places(self.cells)]
        for key in self.cell_keys(record, self.model):
            for cell in (each.get(key) for each in journals):
                if cell and cell["victim"] == self.model:
                    return Measured(TASKS[cell["task"]].read(cell["counts"]), record)
        return None

    @property
    def cells(self) -> str:
        """The place of its data set's cells in a folder of artifacts."""
        return f"cells/{models.find(self.model).data_set}.jsonl"

    def cell_keys(self, record: dict, victim: str) -> Iterator[str]:
        """Yield the keys that the cell of its perturbation on a network can have: on the book's images, on those here.

        record: of the perturbation, see `record`.
        """
        return cell_keys(record["delta_sha256"], record["shape"], self.ball, victim)

    def keep_measured(self, crafted: UniversalPerturbation, journal: Journal, progress: bool = False) -> None:
        """Measure the perturbation on its own network, and keep that as a cell."""
        counts = self.measure(crafted, progress=progress).counts()
        key = _cell_key(provenance.sha256_of(crafted.delta), crafted.delta.shape, self.ball, self.model, at_hand)
        journal.add(key, new_cell(self.name, crafted, self.model, models.says(self.model), counts))


def ablation(method: str, model: str, ball: NormBall, preset: str = "", seed: int = 0) -> Recipe:
    """Return the recipe with the settings of a preset of the method; without one, that of the defaults.

    Raises ValueError for an unknown preset (nearest names given), and as `Recipe` does.
    """
    presets = METHODS[check_name("method", method, METHODS)].presets
    changes = presets[check_name("variant", preset, presets)] if preset else {}
    return Recipe(method, model, ball, seed, changes)


def _duration(seconds: float) -> str:
    """A time as people say it, for instance "about 5 min"."""
    return f"about {max(1, round(seconds))} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _can_be(method: str, model: str, ball: NormBall, changes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is left of the changes when those that say the default are dropped; None where they are not possible."""
    try:
        return Recipe(method, model, ball, settings=changes).settings
    except ValueError:
        return None


def _listed(settings: dict[str, Any]) -> list[str]:
    """Settings for a name; where they are long, a digest of them, for a file's name has a limit."""
    listed = [f"{name}={value}" for name, value in settings.items()]
    return listed if len("-".join(listed)) < _LONGEST_SETTINGS else [f"set={provenance.key(**settings)[:8]}"]


def _on_the_cpu(crafted: UniversalPerturbation) -> UniversalPerturbation:
    return replace(crafted, delta=crafted.delta.cpu())


def _hashable(layers: str | list[str] | None) -> str | tuple[str, ...] | None:
    return tuple(layers) if isinstance(layers, list) else layers


@cache
def _layers(model: str, selection: str | tuple[str, ...] | None) -> list[str]:
    """The layers that a method watches, as they stand in its record."""
    network = models.structure(model)
    chosen = features.choose(network, network.mean_image(), selection or features.default_kind(network))
    return features.record(chosen)["layers"]


def cell_keys(delta_sha256: str, shape: Sequence[int], ball: NormBall, victim: str) -> Iterator[str]:
    """Yield the keys that a perturbation's cell on a network can have: on the book's images, and on those here."""
    return _all_that_can_be(lambda images_record: _cell_key(delta_sha256, shape, ball, victim, images_record))


def _cell_key(delta_sha256: str, shape: Sequence[int], ball: NormBall, victim: str, images_record: Record) -> str:
    evaluated = images_record(victim, "evaluation", None)
    fit = None if list(shape[1:]) == models.find(victim).shape else FITS[0]
    return cell_key(
        delta_sha256=delta_sha256, shape=shape, ball=ball,
        weights_sha256=weights_sha256(victim), images_sha256=evaluated["images_sha256"],
        truth_sha256=evaluated["truth_sha256"], clip=True, autocast=None, fit=fit,
    )  # fmt: skip


def _all_that_can_be(key: Callable[[Record], str]) -> Iterator[str]:
    """The keys on the images of the book and on those at hand, as far as they can be told."""
    for record in (of_the_book, at_hand):
        try:
            yield key(record)
        except (KeyError, FileNotFoundError, ValueError):
            continue


_journals: dict[Path, tuple[int, Journal]] = {}


def _journal(path: Path) -> Journal:
    """The journal at `path`, read again only when it has grown."""
    size = path.stat().st_size if path.exists() else -1
    if path not in _journals or _journals[path][0] != size:
        _journals[path] = size, Journal(path)
    return _journals[path][1]


@contextmanager
def _what_is_not_kept_is_a_warning() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(f"the perturbation could not be kept for the next run: {error}", stacklevel=4)


def _checkpoint(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
