"""One run of an attack: it goes on where it was stopped, loses nothing to Ctrl-C, and its result is on record.

An attack subclasses `Run`: it gives a state, a step, and when to stop. `craft` does the rest, the same for all.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import provenance
from uaplib.attacks.methods import METHODS
from uaplib.balls import NormBall
from uaplib.checks import check_seed
from uaplib.devices import device_name
from uaplib.files import save_checkpoint, write_atomically
from uaplib.perturbation import UniversalPerturbation


class Run(ABC):
    """The state of one crafting, and how it changes.

    method, model, ball, seed, source: for the result. parameters: JSON-safe, all that the result depends on beside
    method, ball, seed and weights. history: JSON-safe dictionaries; a step adds at most one, and changes none but the
    last.
    """

    unit = "it"  # what the progress bar counts

    def __init__(self, method: str, model: nn.Module, ball: NormBall, seed: int, source: str, parameters: dict):
        self.method, self.model, self.ball, self.seed = method, model, ball, check_seed(seed)
        self.source, self.parameters = source, parameters
        self.history: list[dict] = []

    @abstractmethod
    def begin(self) -> None:
        """Set the state before the first step; PyTorch's generator on the CPU has got the seed."""

    @abstractmethod
    def step(self) -> bool:
        """Take one step; return whether it is worth a checkpoint."""

    @abstractmethod
    def finished(self) -> bool:
        """Return whether there is no step left."""

    def end(self) -> bool:
        """Do what is left to do after the last step; return whether anything was."""
        return False

    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """Return how much is done, and how much there is to do at most, in `unit`."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Return all that changes beside the history: tensors by name, and the rest, JSON-safe."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Take over what `state` returned; the tensors lie on the CPU."""

    @abstractmethod
    def delta(self) -> Tensor:
        """Return the perturbation (1, C, H, W) that is the result if the run ends here."""

    def told(self) -> dict[str, str]:
        """Return digests, by name, of what feeds nothing but the history: it tells one checkpoint from another."""
        return {}

    def counts(self) -> dict:
        """Return, JSON-safe, what the record is to say of the run's length."""
        return {}


def craft(run: Run, checkpoint: str | Path | None = None, progress: bool = False) -> UniversalPerturbation:
    """Take the steps of a run and return its result.

    With `checkpoint`, the whole state is written there whenever a step says so, and where Ctrl-C stops the run; the
    same call goes on from there, on a CPU bit for bit. Raises ValueError for a damaged checkpoint, or one of another
    run. Warns when a checkpoint cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.seed)  # all random numbers are drawn on the CPU
        crafting = _Crafting(run, checkpoint)
        crafting.finish(progress)
        return crafting.result()


class _Crafting:
    """A run, the time it took, and a copy of its state after the last whole step."""

    def __init__(self, run: Run, checkpoint: str | Path | None):
        self.run, self.checkpoint, self.seconds = run, Path(checkpoint) if checkpoint else None, 0.0
        self.weights_sha256 = provenance.weights_sha256(run.model)
        run.begin()
        self.key = provenance.key(**self.result().identity, dtype=str(run.delta().dtype), told=run.told())
        if self.checkpoint and self.checkpoint.exists():
            self.resume()
        self.kept = self.copy()

    def finish(self, progress: bool) -> None:
        done, total = self.run.progress()
        with tqdm(total=total, initial=done, desc=self.run.method, unit=self.run.unit, disable=not progress) as bar:
            try:
                while not self.run.finished():
                    self.take(self.run.step, bar)
                self.take(self.run.end, bar)
            except KeyboardInterrupt:
                self.save()  # the last whole step, wherever this one was interrupted
                raise

    def take(self, step: Callable[[], bool], bar: tqdm) -> None:
        started = time.perf_counter()
        worth_keeping = step()
        self.seconds += time.perf_counter() - started
        self.kept = self.copy()
        if worth_keeping:
            self.save()
        bar.update(self.run.progress()[0] - bar.n)
        bar.set_postfix(*self.run.history[-1:], refresh=False)

    def result(self) -> UniversalPerturbation:
        run, delta = self.run, self.run.delta()
        about = {"seconds": round(self.seconds, 1), "device": device_name(delta.device), "commit": provenance.commit()}
        version = METHODS[run.method].version if run.method in METHODS else 1
        return UniversalPerturbation(
            delta, run.ball, run.method, run.source, self.weights_sha256, run.seed, run.parameters, run.history,
            run=about | run.counts(), version=version,
        )  # fmt: skip

    def copy(self) -> tuple[dict[str, Tensor], dict]:
        """A copy of all that changes; of the history, that is its length and its last entry."""
        tensors, rest = self.run.state()
        tensors = {"generator": torch.get_rng_state(), **tensors}
        history = {"entries": len(self.run.history), "last": dict(*self.run.history[-1:])}
        numbers = {"rest": rest, "seconds": self.seconds, **history}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}, numbers

    def save(self) -> None:
        """Write the state after the last whole step."""
        if self.checkpoint is None:
            return
        tensors, state = self.kept
        history = self.run.history[: state["entries"]]
        history[-1:] = [state["last"]] if history else []
        text = json.dumps({"key": self.key, **state, "history": history})
        content = save({name: tensor.cpu() for name, tensor in tensors.items()}, {"state": text})
        save_checkpoint(self.checkpoint, lambda path: write_atomically(path, lambda file: file.write_bytes(content)))

    def resume(self) -> None:
        tensors, state = read_checkpoint(self.checkpoint)
        if state.get("key") != self.key:
            raise ValueError(f"{self.checkpoint} belongs to a run with other arguments; delete it or name another file")
        torch.set_rng_state(tensors.pop("generator"))
        self.run.restore(tensors, state["rest"])
        self.run.history, self.seconds = state["history"], state["seconds"]


def read_checkpoint(checkpoint: Path) -> tuple[dict[str, Tensor], dict]:
    """Return a checkpoint's tensors and its JSON state. Raises ValueError for a file that is none."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (it is no mapping)
    except SafetensorError as error:
        raise ValueError(f"{checkpoint} is no checkpoint, or a damaged one; delete it: {error}") from error
