"""The released perturbations and the papers' tables: readers against known facts, and files that are something else."""

import hashlib
import math
import sys

import numpy as np
import pooch
import pytest
import torch
from scipy.io import loadmat, savemat

from uaplib import published
from uaplib.published import LAYOUTS, RELEASES

UAPS = [name for name in RELEASES if name.startswith("uap-") and name != "uap-Inception"]
L2_NORMS = {"CaffeNet": 3342, "GoogLeNet": 2993, "ResNet-152": 3013, "VGG-16": 3144, "VGG-19": 3157, "VGG-F": 3541}


def test_all_of_them_are_known():
    by_method = {m: [r.network for r in RELEASES.values() if r.method == m] for m in ("uap", "fff", "gd-uap-none")}
    assert {m: len(networks) for m, networks in by_method.items()} == {"uap": 7, "fff": 5, "gd-uap-none": 5}
    assert set(by_method["uap"]) == {*L2_NORMS, "Inception"}
    assert len({release.sha256 for release in RELEASES.values()}) == len(RELEASES) == 17


@pytest.mark.parametrize("name", RELEASES)
def test_each_release_is_read(name, released):
    released(name)
    found = published.load(name)
    side = 227 if name == "fff-CaffeNet" else 224
    assert (found.delta.shape, found.delta.dtype) == ((1, 3, side, side), torch.float32)
    assert found.delta.abs().max().item() == pytest.approx(10 / 255, rel=1e-6)
    assert str(found.ball) == "l∞ ≤ 10/255"
    assert found.source == RELEASES[name].network


@pytest.mark.parametrize("name", UAPS)
def test_the_six_uaps_saturate_little_and_have_the_norms_on_record(name, released):
    released(name)
    found = published.load(name)
    assert 255 * found.delta.norm().item() == pytest.approx(L2_NORMS[found.source], abs=1)
    assert 0.0245 < found.saturation < 0.128


@pytest.mark.parametrize("name", [name for name in RELEASES if not name.startswith("uap-")])
def test_the_others_saturate_nearly_everywhere(name, released):
    released(name)
    assert 0.66 < published.load(name).saturation < 0.92


def test_the_reader_turns_axes_and_colours(released):
    columns_rows = loadmat(released("uap-VGG-16"))["r"]
    ours = published.load("uap-VGG-16").delta[0]
    assert ours[2, 5, 7].item() == pytest.approx(columns_rows[7, 5, 2] / 255, rel=1e-6)  # column 7, row 5, blue
    blue_first = np.load(released("fff-VGG-16"))
    ours = published.load("fff-VGG-16").delta[0]
    assert ours[0, 5, 7].item() == pytest.approx(blue_first[0, 5, 7, 2] / 255, rel=1e-6)  # red comes last


def written(path, values):
    if path.suffix == ".mat":
        savemat(path, {"r": values})
    else:
        np.save(path, values)
    return path


def marked(layout):
    """A 2 x 3 picture in a layout, whose value at channel c, row y, column x is known: (100 c + 10 y + x) / 30."""
    axes, colours, unit = layout.split("-")
    c, y, x = np.meshgrid(range(3), range(2), range(3), indexing="ij")
    values = (100 * c + 10 * y + x) / 30
    values = values if colours == "RGB" else values[::-1]
    return values.transpose(["CHW".index(axis) for axis in axes]) * int(unit) / 255


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout, batched, tmp_path):
    values = marked(layout).astype(np.float32)
    path = written(tmp_path / "v.npy", values[None] if batched else values)
    found = published.read(path, layout, source="mine")
    assert found.delta.shape == (1, 3, 2, 3)
    assert found.source == "mine"
    for c, y, x in [(0, 0, 2), (1, 1, 0), (2, 1, 2)]:
        assert 255 * found.delta[0, c, y, x].item() == pytest.approx((100 * c + 10 * y + x) / 30, abs=1e-4)


def test_matlab_files_and_doubles(tmp_path):
    path = written(tmp_path / "v.mat", marked("WHC-RGB-255"))
    found = published.read(path, "WHC-RGB-255")
    assert found.delta.dtype == torch.float32
    assert 255 * found.delta.max().item() == pytest.approx(212 / 30, rel=1e-5)


def spoilt(change):
    values = np.full((4, 4, 3), 9.0, np.float32)
    if change == "NaN":
        values[0, 0, 0] = math.nan
    return {
        "NaN": values, "out of its budget": 2 * values, "another unit": values / 255, "all zero": 0 * values,
        "channels elsewhere": values.transpose(2, 0, 1), "grey": values[..., :1],
        "two pictures": np.stack([values] * 2), "integers": np.full((4, 4, 3), 9), "objects": np.array([{}], object),
    }[change]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("NaN", "up to nan/255"),
        ("out of its budget", "up to 18/255 in the layout HWC-RGB-255, and the budget is 10/255"),
        ("another unit", "another unit"),
        ("all zero", "up to 0/255"),
        ("channels elsewhere", r"has shape \(3, 4, 4\), which is not three channels in the layout HWC-RGB-255"),
        ("grey", r"shape \(4, 4, 1\)"),
        ("two pictures", r"shape \(2, 4, 4, 3\)"),
        ("integers", "floating-point"),
        ("objects", "cannot be read"),
    ],
)
def test_a_file_that_is_not_what_it_says(change, message, tmp_path):
    path = written(tmp_path / "v.npy", spoilt(change))
    with pytest.raises(ValueError, match=message):
        published.read(path, "HWC-RGB-255")


@pytest.mark.parametrize("name", ["v.npy", "v.mat"])
@pytest.mark.parametrize("content", [b"", b"not a perturbation", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_damaged_files(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a perturbation"):
        published.read(path, "WHC-RGB-255")


def test_a_matlab_file_with_several_variables_needs_the_authors_name(tmp_path):
    values = np.full((4, 4, 3), 10.0)
    savemat(tmp_path / "v.mat", {"v": values, "w": values})
    with pytest.raises(ValueError, match="cannot be read as a perturbation in a file of MATLAB"):
        published.read(tmp_path / "v.mat", "WHC-RGB-255")
    savemat(tmp_path / "r.mat", {"r": values, "w": values})
    savemat(tmp_path / "one.mat", {"w": values})
    assert all(
        published.read(tmp_path / name, "WHC-RGB-255").delta.shape == (1, 3, 4, 4) for name in ("r.mat", "one.mat")
    )


@pytest.mark.parametrize("ending", [".pt", ".pth"])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"delta": t}], ids=["tensor", "dictionary"])
def test_a_file_of_pytorch_is_read_without_unpickling(tmp_path, ending, wrap):
    values = torch.full((1, 3, 4, 5), 10 / 255)
    values[0, 0, 1, 2] *= -1
    torch.save(wrap(values), tmp_path / f"v{ending}")
    assert torch.equal(published.read(tmp_path / f"v{ending}", "CHW-RGB-1").delta, values)
    torch.save({"delta": values, "model": torch.nn.ReLU()}, tmp_path / f"model{ending}")
    with pytest.raises(ValueError, match="cannot be read as a perturbation in a file of PyTorch"):
        published.read(tmp_path / f"model{ending}", "CHW-RGB-1")


@pytest.mark.parametrize("ending", [".npy", ".mat", ".pt", ".pth", ".h5", ".hdf5"])
def test_a_damaged_file_is_named_without_the_librarys_words(tmp_path, ending):
    if ending in (".h5", ".hdf5"):
        pytest.importorskip("h5py")
    (tmp_path / f"v{ending}").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="cannot be read as a perturbation") as caught:
        published.read(tmp_path / f"v{ending}", "CHW-RGB-1")
    assert "pickle" not in str(caught.value)


def test_hdf5_says_what_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "v.h5").write_bytes(b"")
    with pytest.raises(ImportError, match="h5py is not installed: pip install h5py"):
        published.read(tmp_path / "v.h5", "CHW-RGB-1")


@pytest.mark.parametrize("name", ["v.jpg", "v", "v.safetensors"])
def test_another_kind_of_file_is_refused_with_the_kinds_there_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="ending=.* is unknown.*Known: .npy, .mat, .pt, .pth, .h5, .hdf5"):
        published.read(tmp_path / name, "CHW-RGB-1")


def test_names_layouts_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="uap-VGG-16"):
        published.load("uap-VGG16")
    with pytest.raises(ValueError, match="HWC-BGR-255"):
        published.read(tmp_path / "v.npy", "HWC-BRG-255")
    with pytest.raises(FileNotFoundError, match="there is no perturbation"):
        published.read(tmp_path / "v.npy", "HWC-BGR-255")
    with pytest.raises(ValueError, match="later-methods"):
        published.table("later-method")


@pytest.fixture
def release(monkeypatch, tmp_path):
    """One small release in an empty data folder: its file, and a function that registers what is said of it."""
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    path = tmp_path / "published-perturbations" / "mine" / "v.npy"
    path.parent.mkdir(parents=True)
    values = np.zeros((1, 2, 2, 3), np.float32)
    values[0, 0, 0] = 10
    written(path, values)

    def register(saturation=0.25, l2_255=17.32, digest=None):
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
        mine = published.Release("m", "N", "HWC-RGB-255", "mine/v.npy", "http://x/v.npy", digest, saturation, l2_255)
        monkeypatch.setattr(published, "RELEASES", {"m-N": mine})

    return path, register


def test_a_release_is_checked_by_digest_and_by_what_is_in_it(release):
    path, register = release
    register()
    assert published.load("m-N").saturation == 0.25
    register(saturation=0.3)
    with pytest.raises(ValueError, match=r"25.0% of the values are saturated.*but 30.0%"):
        published.load("m-N")
    register(l2_255=100)
    with pytest.raises(ValueError, match="17/255, but .* 100/255 were released"):
        published.load("m-N")
    register(digest="0" * 64)
    with pytest.raises(ValueError, match="does not have the SHA-256 of m-N"):
        published.load("m-N")


def test_a_release_that_is_not_there_is_downloaded_with_its_digest(release, monkeypatch):
    path, register = release
    register()
    content, asked = path.read_bytes(), []
    path.unlink()

    def retrieve(url, known_hash, fname, folder, downloader):
        asked.append((url, known_hash))
        path.write_bytes(content)
        return str(folder / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert published.load("m-N").saturation == 0.25
    assert asked == [("http://x/v.npy", f"sha256:{hashlib.sha256(content).hexdigest()}")]


def test_a_release_that_can_be_had_nowhere(release, monkeypatch):
    path, register = release
    register()
    path.unlink()
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(FileNotFoundError) as caught:
        published.load("m-N")
    assert str(caught.value) == (
        f"{path} is not there, and http://x/v.npy could not be downloaded: no network.\n"
        "Fetch it yourself, and put it there."
    )


def test_the_papers_tables():
    uap, gd = published.table("uap-transfer"), published.table("gd-uap-range-prior-transfer")
    assert sorted(uap.index) == sorted(uap.columns) == sorted(gd.index) == sorted(gd.columns)
    assert uap.loc["VGG-16", "VGG-19"] == 73.1
    assert gd.loc["ResNet-152", "VGG-19"] == 26.52
    assert published.table("gd-uap-priors").loc["VGG-16", "range prior"] == 63.08
    assert published.table("gd-uap-segmentation").loc["DeepLab-VGG-16", "data prior"] == 44.9
    assert published.table("gd-uap-depth").loc["ResNet-50, range prior", "sq_rel"] == 3.292
    assert published.table("later-methods").loc["PSP-UAP", "year"] == 2025
    for name in published.TABLES:
        values = published.table(name).select_dtypes("number").drop(columns="year", errors="ignore")
        assert values.stack().dropna().between(0, 100).all()
