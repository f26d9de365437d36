"""The wheel holds every file of the library: code, weights, tables, the registry of artifacts."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_every_file_of_the_library(tmp_path):
    pytest.importorskip("hatchling")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        packed = {name for name in wheel.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "uaplib"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert packed == {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {Path(name).suffix for name in packed} == {".py", ".json", ".csv", ".safetensors"}
