"""The additions that CONTRIBUTING describes, each done in a copy of the tree: so many files, and all else follows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.book.conftest import ROOT, working_files
from uaplib.pipeline.execute import chapters

NOT_NEEDED = ("artifacts/", "benchmarks/", "book/_static/", "book/_vendor/")  # they are large
GIT = ("git", "-c", "user.name=a test", "-c", "user.email=a@test", "-c", "core.autocrlf=false")

ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}  # no plugins, which take seconds; wide tables
FOLLOWS = """
import json
import sys

import pytest

from uaplib.cli import app

for command in json.loads(sys.argv[1]):
    app(command.split(), standalone_mode=False)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""  # in one process, because each would import PyTorch anew

ATTACK = '''"""FGSM on the mean image, step after step: a perturbation from no data."""

import torch
from torch.nn import functional as F

from uaplib.attacks import runs
from uaplib.attacks.activations import check_normalized
from uaplib.checks import whole

DEFAULT = {"max_iterations": 20}
PRESETS = {"mean-sign": {"short": {"max_iterations": 5}}}


class _Run(runs.Run):
    """The perturbation, and how many steps it took away from what the network says of the mean image."""

    def begin(self):
        self.mean, self.steps = self.model.mean_image(), 0
        with torch.no_grad():
            self.label = self.model(self.mean).argmax(1)
        self.v = 0.1 * self.ball.sample_boundary(tuple(self.mean.shape)).to(self.mean.device)

    def step(self):
        v = self.v.clone().requires_grad_()
        loss = F.cross_entropy(self.model(self.mean + v), self.label)
        (gradient,) = torch.autograd.grad(loss, v)
        self.v, self.steps = self.ball.project(self.v + self.ball.eps / 4 * gradient.sign()), self.steps + 1
        self.history.append({"iteration": self.steps, "loss": loss.item()})
        return True

    def finished(self):
        return self.steps >= self.parameters["max_iterations"]

    def progress(self):
        return self.steps, self.parameters["max_iterations"]

    def state(self):
        return {"v": self.v}, {"steps": self.steps}

    def restore(self, tensors, rest):
        self.v, self.steps = tensors["v"].to(self.mean.device), rest["steps"]

    def delta(self):
        return self.v


def mean_sign(model, ball, *, max_iterations=20, seed=0, source="", checkpoint=None, progress=False):
    """Craft a perturbation that leads the mean image away from its label."""
    check_normalized(model)
    parameters = settings(ball, max_iterations=max_iterations)
    return runs.craft(_Run("mean-sign", model, ball, seed, source, parameters), checkpoint, progress)


def settings(ball, **changes):
    """Return all settings; see `uaplib.attacks.methods`."""
    return whole(**DEFAULT | changes)


def run(model, ball, settings, data, **options):
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return mean_sign(model, ball, **settings, **data, **options)
'''
END_OF_METHODS = ")  # fmt: skip\nMETHODS"
METHOD = """    Method(
        "mean-sign", "FGSM of the mean image", "mean image", "_mean_sign", sees="nothing",
        paper="goodfellow2015explaining", cost="twenty gradients", tasks=("label",),
    ),
"""
SUMMARY = r"""    "## Summary\n",
"""
SENTENCE = r"""    "\n",
    "FGSM on the mean image, `mean-sign`, is simpler still {cite}`goodfellow2015explaining`.\n",
"""
TEST_OF_THE_ATTACK = """import torch

from uaplib import attacks, models
from uaplib.balls import linf


def test_mean_sign_takes_the_step_of_fgsm():
    model, ball = models.load("vgg-f-mini"), linf(24)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        start = 0.1 * ball.sample_boundary((1, 1, 28, 28))
    label = model(model.mean_image()).argmax(1)
    stepped = attacks.fgsm(model, model.mean_image() + start, 6 / 255, label, clip=False)
    found = attacks.mean_sign(model, ball, max_iterations=1, seed=3)
    assert torch.allclose(model.mean_image() + found.delta, stepped, atol=1e-6)
"""

AFTER_THE_UNET = "class LiteEncoder("
BUILDER = '''class Shallow(nn.Module):
    """One layer of features, and what each says of its pixel."""

    def __init__(self, outputs: int):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the size of `x`."""
        return self.head(self.features(x).relu())


'''
FIRST_OF_OTHERS = '    "efficientnet-lite0": '
NETWORK = """    "shallow-scenes": Network(
        lambda: models.dense.Shallow(len(data.scenes.CLASSES)),
        data_set="scenes",
        size=DATA_SETS["scenes"].size,
        **_LITE,
        task="classes",
        source="random numbers",
        licence=OURS,
    ),
"""

STRIPES = '''"""Stripes, across or along: made when they are used."""

from typing import NamedTuple

import torch
from torch import Tensor

from uaplib.data import ROLES

CLASSES = ("across", "along")
MOST = 100


class Images(NamedTuple):
    """Images (N, 1, 16, 16), float32 in [0, 1], and how their stripes run (N,), int64."""

    images: Tensor
    labels: Tensor


def load_role(role: str, count: int | None = None) -> Images:
    """Return the stripes that play a role, or the first `count`; see `uaplib.data.load`."""
    period, phase = torch.rand(2, MOST, 1, 1, 1, generator=torch.Generator().manual_seed(ROLES.index(role)))
    across = 0.5 + 0.5 * torch.sin(torch.arange(16.0).view(16, 1) / (0.5 + period) + 6 * phase).expand(-1, -1, 16, 16)
    labels = torch.arange(MOST) % 2
    images = torch.where(labels.view(-1, 1, 1, 1) == 1, across.transpose(2, 3), across)
    return Images(images[:count].contiguous(), labels[:count])


def most(role: str) -> int:
    """Return how many images play a role."""
    return MOST


def describe(role: str) -> str:
    """Return in words where the images of a role come from."""
    return f"stripes for {role}"
'''
LAST_DATA_SET = '    "depth-folders": '
DATA_SET = """    "stripes": DataSet(
        title="stripes",
        module="stripes",
        licence="MIT, as the code that draws them",
        get="nothing to get: they are drawn when they are used",
        tasks=("label",),
        size=16,
    ),
"""
TEST_OF_THE_DATA = """from uaplib import data


def test_stripes_along_are_the_same_in_every_row():
    images, labels = data.load("stripes", "crafting")
    along = images[labels == 1]
    assert along.amin(2).equal(along.amax(2))
"""
CHAPTER = [  # a file, the line that it gets, and what stands behind the last chapter there
    ("_toc.yml", "      - file: notebooks/12-added\n", "  - caption: How-to guides"),
    ("README.md", "| 12 | [Added](notebooks/12-added.ipynb): one more\n", "\n## More"),
    ("book/intro.md", "| 12 | {doc}`Added <../notebooks/12-added>` | one more |\n", "\nEach chapter can be read"),
]


class Tree:
    """A checkout in a folder of its own: its files are changed, and its own library runs there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        assert not (self.folder / name).exists()
        (self.folder / name).write_text(text, encoding="utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        """Put `new` into the only place of a file where `old` stands."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (self.folder / name).write_text(text.replace(old, new), encoding="utf-8")

    def touched(self) -> list[str]:
        """The files that differ from what was copied, as git sees them."""
        command = [*GIT, "status", "--porcelain", "--untracked-files=all"]
        lines = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line[3:] for line in lines]

    def follows(self, commands: list[str], tests: list[str], of: str) -> str:
        """What a process prints that runs commands of `uaplib` in this tree, then the tests whose names have `of`.

        All of it must end well, and some tests must run.
        """
        environment = {**os.environ, **ALONE, "PYTHONPATH": str(self.folder)}
        command = [sys.executable, "-c", FOLLOWS, json.dumps(commands), *tests, "-k", of]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE), done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """A repository with the working files as its only commit."""
    folder = tmp_path_factory.mktemp("copied")
    for name in working_files():
        if not name.startswith(NOT_NEEDED):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "The book"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def tree(copied, tmp_path) -> Tree:
    """The working files, to be changed."""
    subprocess.run([*GIT, "clone", "-q", copied, tmp_path / "tree"], check=True)
    return Tree(tmp_path / "tree")


def test_an_attack_takes_four_files(tree):
    tree.write("uaplib/attacks/_mean_sign.py", ATTACK)
    tree.replace("uaplib/attacks/methods.py", END_OF_METHODS, METHOD + END_OF_METHODS)
    tree.write("tests/conformance/test_mean_sign.py", TEST_OF_THE_ATTACK)
    tree.replace("notebooks/05-fast-feature-fool.ipynb", SUMMARY, SUMMARY + SENTENCE)
    assert len(tree.touched()) == 4
    printed = tree.follows(
        ["list methods", "craft mean-sign --model caffenet-mini --eps-255 24 --variant short --device cpu"],
        ["tests/attacks/test_contract.py", "tests/conformance/test_mean_sign.py", "tests/notebooks/test_structure.py"],
        of="mean-sign or mean_sign or 05-fast-feature-fool",
    )
    assert "mean-sign: FGSM of the mean image" in printed
    kept = "artifacts/caffenet-mini/mean-sign-caffenet-mini-linf24-short-s0.safetensors"
    assert (tree.folder / kept).is_file()


def test_a_network_takes_two_files(tree):
    tree.replace("uaplib/models/dense.py", AFTER_THE_UNET, BUILDER + AFTER_THE_UNET)
    tree.replace("uaplib/models/spec.py", FIRST_OF_OTHERS, NETWORK + FIRST_OF_OTHERS)
    assert len(tree.touched()) == 2
    printed = tree.follows(
        ["list models", "craft noise --model shallow-scenes --eps-255 40 --device cpu"],
        ["tests/models/test_spec.py"],
        of="shallow-scenes",
    )
    assert "trained by others: shallow-scenes, " in printed
    assert (tree.folder / "artifacts/shallow-scenes/noise-shallow-scenes-linf40-s0.safetensors").is_file()


def test_a_data_set_takes_three_files(tree):
    tree.write("uaplib/data/stripes.py", STRIPES)
    tree.replace("uaplib/data/__init__.py", LAST_DATA_SET, DATA_SET + LAST_DATA_SET)
    tree.write("tests/data/test_stripes.py", TEST_OF_THE_DATA)
    assert len(tree.touched()) == 3
    printed = tree.follows(["list data"], ["tests/data/test_roles.py", "tests/data/test_stripes.py"], of="stripes")
    assert "stripes: stripes\n    licence: MIT, as the code that draws them" in printed


def test_a_chapter_takes_four_files(tree):
    frame = (tree.folder / "notebooks/01-fgsm.ipynb").read_text(encoding="utf-8")
    tree.write("notebooks/12-added.ipynb", frame.replace("01-fgsm", "12-added").replace("-fgsm", "-added"))
    for name, line, behind in CHAPTER:
        tree.replace(name, behind, line + behind)
    assert len(tree.touched()) == 4
    assert "12-added" in [notebook.stem for notebook in chapters(tree.folder)]
    tree.follows([], ["--noconftest", "tests/notebooks/test_structure.py"], of="12-added or chapter")
