"""Commands and packages import only what they need: modules are counted, not seconds."""

import subprocess
import sys

import pytest

from uaplib import attacks, data, models

SLOW = {"torchvision", "torchmetrics", "scipy", "pandas", "matplotlib", "pooch", "pydantic", "torch._dynamo"}
LIGHT = ["attacks", "attacks.activations", "balls", "checks", "data", "data.camvid", "data.fashion_mnist",
         "data.pictures", "data.scenes", "features", "files", "journal", "metrics", "metrics.tasks", "models",
         "models.dense", "models.minis", "models.pretrained", "perturbation", "priors", "provenance", "published",
         "experiments", "experiments.studies"]  # fmt: skip


def imported(program, *arguments):
    """All modules that a fresh process has after the program, which may end by SystemExit."""
    program = f"import sys\ntry:\n    {program}\nfinally:\n    print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    return done.returncode, set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 0), ("--version", 0), ("", 2), ("craft --help", 0), ("transfer --help", 0),
        ("book --help", 0), ("book build --help", 0),
        ("list models", 0), ("list data", 0), ("list methods", 0), ("list published", 0),
        ("list model", 2), ("crafd", 2), ("craft --epz 8", 2), ("craft uap", 2), ("craft upa --eps-255 8", 2),
        ("train", 2), ("transfer", 2),
        ("get --help", 0), ("get", 2), ("get --chapter 1", 2),
    ],
)  # fmt: skip
def test_help_lists_and_refusals_import_nothing_slow(command, code):
    check_light(command, code)


def test_to_get_what_is_there_imports_nothing_slow(checkout):
    check_light("get --chapter 5", 0)


def check_light(command, code):
    ended, found = imported("from uaplib.cli import main; main()", *command.split())
    assert ended == code
    assert "uaplib.cli" in found
    # New versions of typer read values with pydantic.
    assert not found & ((SLOW | {"torch", "numpy", "safetensors"}) - {"pydantic"})


def test_importing_the_library_imports_pytorch_and_nothing_slow():
    _, found = imported("import " + ", ".join(f"uaplib.{name}" for name in LIGHT))
    assert {"torch", *(f"uaplib.{name}" for name in LIGHT)} <= found
    assert not found & SLOW


@pytest.mark.parametrize("name", ["attacks", "metrics", "perturbation"])
def test_each_is_light_by_itself(name):
    _, found = imported(f"import uaplib.{name}")
    assert f"uaplib.{name}" in found
    assert not found & SLOW


@pytest.mark.parametrize("name", ["models", "models.spec", "data", "releases", "attacks"])
def test_tables_of_names_do_without_pytorch(name):
    _, found = imported(f"import uaplib.{name}")
    assert f"uaplib.{name}" in found
    assert not found & (SLOW | {"torch", "numpy"})


def test_what_is_imported_late_is_there():
    statement = "from uaplib import data, models; models.Normalized, models.minis, data.DATASETS['camvid'].CLASSES"
    ended, found = imported(statement)
    assert ended == 0
    assert {"uaplib.models.normalized", "uaplib.models.minis", "uaplib.data.camvid"} <= found


@pytest.mark.parametrize("package", [models, data, attacks])
def test_a_package_refuses_other_names_and_lists_its_own(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'vgg'"):
        _ = package.vgg
    own = {"DATASETS", *(row.module for row in data.DATA_SETS.values())} if package is data else {*package.__all__}
    assert set(dir(package)) >= own
    assert all(getattr(package, name) is not None for name in own)


def test_a_slow_import_is_noticed():
    _, found = imported("import uaplib.plots")
    assert "matplotlib" in found
