"""The wheel holds every file of the library: code, weights, tables, the registry of artifacts. It works by itself."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USED = """
import pkgutil, sys
from importlib import import_module
import uaplib
from uaplib import balls, cli, experiments, files

for module in pkgutil.walk_packages(uaplib.__path__, "uaplib."):
    import_module(module.name)
print(uaplib.__file__, files.checkout())
print(experiments.Recipe("uap", "resnet-mini", balls.linf(24)).find().parameters["images"], "images")
sys.argv = ["uaplib", "list", "models"]
cli.main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the checkout, an open archive."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_the_library(wheel):
    packed = {name for name in wheel.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "uaplib"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert packed == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {Path(name).suffix for name in packed} == {".py", ".json", ".csv", ".txt", ".safetensors"}


def test_the_unpacked_wheel_is_all_that_is_needed(wheel, tmp_path):
    """In an empty folder every module is imported, a kept result is found, and networks are listed."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(site)
    empty.mkdir()
    places = {"PYTHONPATH": site, "UAPLIB_DATA": tmp_path / "data", "UAPLIB_ARTIFACTS": ROOT / "artifacts"}
    environment = os.environ | {name: str(place) for name, place in places.items()}
    done = subprocess.run([sys.executable, "-c", USED], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    where, found, *listed = done.stdout.splitlines()
    assert where == f"{site / 'uaplib' / '__init__.py'} None"
    assert found == "100 images"
    assert any("resnet-mini" in line for line in listed)
    assert not list(empty.iterdir())
