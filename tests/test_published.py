"""The released perturbations and the papers' tables: readers against known facts, and files that are something else."""

import hashlib
import math
import re
import sys

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import loadmat, savemat

from tests.conftest import or_skip
from uaplib import metrics, models, provenance, published, releases
from uaplib.data import nips2017
from uaplib.published import LAYOUTS, RELEASES

ORIGINS = ("lts4", "fff", "gd-uap", "port")
MAKERS = {origin: [name for name, r in RELEASES.items() if r.origin == origin] for origin in ORIGINS}
UAPS = [name for name in MAKERS["lts4"] if name != "uap-Inception"]
STD = (0.229, 0.224, 0.225)
L2_NORMS = {"CaffeNet": 3342, "GoogLeNet": 2993, "ResNet-152": 3013, "VGG-16": 3144, "VGG-19": 3157, "VGG-F": 3541}


def test_all_of_them_are_known():
    assert {origin: len(names) for origin, names in MAKERS.items()} == {"lts4": 7, "fff": 5, "gd-uap": 18, "port": 5}
    assert releases.of_the_matrix() == MAKERS["lts4"] + MAKERS["fff"] + MAKERS["gd-uap"]
    assert {RELEASES[name].network for name in MAKERS["lts4"]} == {*L2_NORMS, "Inception"}
    assert len({release.sha256 for release in RELEASES.values()}) == len(RELEASES) == 53
    assert len({release.delta_sha256 for release in RELEASES.values()}) == 53
    assert all(release.proof and re.search(r"/[0-9a-f]{40}/", release.url) for release in RELEASES.values())


@pytest.mark.parametrize("name", RELEASES)
def test_each_release_is_read(name, released):
    released(name)
    found = published.load(name)
    larger = name in ("fff-CaffeNet", "singular-AlexNet") or "CaffeNet-authors" in name
    side = 227 if larger else 224
    assert (found.delta.shape, found.delta.dtype) == ((1, 3, side, side), torch.float32)
    budget = int(name.split("linf")[1]) if "linf" in name else {"gap-ResNet-152": 16}.get(name, 10)
    if name == "uap-GoogLeNet-sfr-l2":
        assert 255 * found.delta.norm().item() == pytest.approx(2000, rel=1e-5)
        assert found.ball.eps == pytest.approx(2000 / 255)
    else:
        assert found.delta.abs().max().item() == pytest.approx(budget / 255, rel=1e-6)
        assert str(found.ball) == f"l∞ ≤ {budget}/255"
    assert found.source == RELEASES[name].network
    assert published.ball_of(name) == found.ball


@pytest.mark.parametrize("name", UAPS)
def test_the_six_uaps_saturate_little_and_have_the_norms_on_record(name, released):
    released(name)
    found = published.load(name)
    assert 255 * found.delta.norm().item() == pytest.approx(L2_NORMS[found.source], abs=1)
    assert 0.0245 < found.saturation < 0.128


@pytest.mark.parametrize("name", MAKERS["fff"] + MAKERS["port"] + MAKERS["gd-uap"])
def test_the_others_saturate_nearly_everywhere(name, released):
    released(name)
    assert 0.55 < published.load(name).saturation < 0.96


def test_the_reader_turns_axes_and_colours(released):
    rows_columns = loadmat(released("uap-VGG-16"))["r"]
    ours = published.load("uap-VGG-16").delta[0]
    assert ours[2, 5, 7].item() == pytest.approx(rows_columns[5, 7, 2] / 255, rel=1e-6)  # row 5, column 7, blue
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
    values = values / np.reshape(STD, (3, 1, 1))[:: 1 if colours == "RGB" else -1] / 255 if unit == "std" else values
    return values.transpose(["CHW".index(axis) for axis in axes]) * {"255": 1, "1": 1 / 255, "std": 1}[unit]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout, batched, tmp_path):
    values = marked(layout).astype(np.float32)
    path = written(tmp_path / "v.npy", values[None] if batched else values)
    found = published.read(path, layout, source="mine", std=STD if layout.endswith("std") else None)
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
        ("integers", "floating-point numbers, but int64"),
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


def test_a_matlab_file_with_several_variables_needs_a_usual_name(tmp_path):
    values = np.full((4, 4, 3), 10.0)
    for names in ("uw", "rv"):
        savemat(tmp_path / "v.mat", dict.fromkeys(names, values))
        with pytest.raises(
            ValueError, match=f"v.mat holds several arrays, {', '.join(names)}; the one that counts must"
        ):
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


@pytest.mark.parametrize("name", ["v.jpg", "v", "v.pkl"])
def test_another_kind_of_file_is_refused_with_the_kinds_there_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="ending=.* is unknown.*Known: .npy, .npz, .mat, .pt, .pth, .safetensors, .h5"):
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

    def register(saturation=0.25, l2_255=17.32, digest=None, read_as=None):
        read_as = read_as or provenance.sha256_of(published.read(path, "HWC-RGB-255").delta)
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
        mine = published.Release(
            "mine", "m", "N", "inf", 10, "HWC-RGB-255", 1, "mine/v.npy", "http://x/v.npy", digest, 2, read_as,
            saturation, l2_255, "",
        )  # fmt: skip
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
    register(read_as="0" * 64)
    with pytest.raises(ValueError, match="was read otherwise than results with it on record"):
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


READINGS = ("HWC-RGB-255", "HWC-BGR-255", "WHC-RGB-255", "WHC-BGR-255")


@pytest.mark.parametrize(
    ("name", "others", "floor"),
    [
        ("uap-GoogLeNet", [layout for layout in READINGS if layout != "HWC-RGB-255"], 0.7),
        ("uap-GoogLeNet-sfr-1", ["CWH-RGB-255", "CHW-BGR-255", "CHW-RGB-255"], 0.65),
    ],
)
def test_read_rightly_a_release_fools_its_own_network_more_than_in_any_other_reading(name, others, floor, released):
    """The paper says 78.9 % of the 50,000 validation images, on this network."""
    path, release = released(name), RELEASES[name]
    model, found = or_skip(models.load, "googlenet-caffe"), or_skip(nips2017.pictures)[:40]
    images, _ = found.load(models.preprocessing("googlenet-caffe"))
    clean = metrics.predict(model, images)

    def rate(layout):
        delta = published.read(path, layout).delta
        return metrics.fooling_rate(clean, metrics.predict(model, images, delta)).value

    right = rate(release.layout)
    assert right > floor
    assert all(right > rate(layout) + 0.02 for layout in others)


def test_what_users_have_is_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).choice([-10.0, 10.0, 3.0], (4, 5, 3))
    expected = torch.from_numpy(values).permute(2, 0, 1)[None].float() / 255
    np.savez(tmp_path / "v.npz", values)
    np.savez(tmp_path / "named.npz", delta=values, seed=np.zeros(3))
    save_file({"uap": torch.from_numpy(values).bfloat16()}, tmp_path / "v.safetensors")
    torch.save(torch.from_numpy(values), tmp_path / "v.pt")
    for name in ("v.npz", "named.npz", "v.safetensors", "v.pt"):
        found = published.read(tmp_path / name, "HWC-RGB-255").delta
        assert torch.allclose(found, expected, rtol=1e-6)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["r"] = values.transpose(2, 1, 0)
        file["seed"] = np.zeros(3)
    assert torch.allclose(published.read(tmp_path / "v.h5", "CWH-RGB-255").delta, expected, rtol=1e-6)


def test_matlabs_version_7_3_is_read_as_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.full((3, 5, 4), 10.0)
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file["r"] = values
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with (tmp_path / "v.mat").open("r+b") as file:
        file.write(header)
    assert published.read(tmp_path / "v.mat", "CWH-BGR-255").delta.shape == (1, 3, 4, 5)


def test_a_png_counts_from_its_middle(tmp_path):
    values = np.full((4, 5, 3), 128, np.uint8)
    values[0, 0] = (138, 118, 131)
    Image.fromarray(values).save(tmp_path / "v.png")
    found = 255 * published.read(tmp_path / "v.png", "HWC-RGB-255").delta[0, :, 0, 0]
    assert found.tolist() == pytest.approx([10, -10, 3], rel=1e-6)
    values[0, 0] = (255, 0, 127)
    Image.fromarray(values).save(tmp_path / "stretched.png")
    found = published.read(tmp_path / "stretched.png", "HWC-RGB-255", zero=127.5, scale=10 / 127.5)
    assert (255 * found.delta[0, :, 0, 0]).tolist() == pytest.approx([10, -10, -0.5 / 12.75], rel=1e-5)
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match="cannot be read as a perturbation in a file of PNG"):
        published.read(tmp_path / "grey.png", "HWC-RGB-255")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_may_round_beyond_the_budget_and_nothing_else(tmp_path, dtype):
    torch.save(torch.full((1, 3, 2, 2), 10 / 255).to(dtype), tmp_path / "v.pt")
    found = published.read(tmp_path / "v.pt", "CHW-RGB-1")
    assert found.ball.contains(found.delta).all()
    assert 255 * found.delta.max().item() == pytest.approx(10, rel=0.01)
    for largest, words in ((10.03, "10.03"), (10.1, "10.1")):
        torch.save(torch.full((1, 3, 2, 2), largest / 255), tmp_path / "v.pt")
        with pytest.raises(ValueError, match=f"holds values up to {words}/255 in the layout CHW-RGB-1"):
            published.read(tmp_path / "v.pt", "CHW-RGB-1")


def test_an_l2_budget(tmp_path):
    values = np.zeros((4, 4, 3), np.float32)
    values[0, 0, 0] = 1.5
    path = written(tmp_path / "v.npy", values)
    assert published.read(path, "HWC-RGB-1", eps_l2=2.0).ball.p == 2
    with pytest.raises(ValueError, match=r"has the l2 norm 1.5 in the layout HWC-RGB-1, and the budget is 1:"):
        published.read(path, "HWC-RGB-1", eps_l2=1.0)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"std": (0.2, 0.2)}, ValueError, "std must be three numbers above 0"),
        ({"std": (0.2, 0, 0.2)}, ValueError, "std must be three numbers above 0"),
        ({"std": STD, "scale": "x"}, TypeError, "scale must be a number"),
        ({"std": STD, "zero": None, "scale": True}, TypeError, "scale must be a number"),
    ],
)
def test_bad_numbers_are_named(tmp_path, given, error, words):
    path = written(tmp_path / "v.npy", np.full((4, 4, 3), 0.17))
    with pytest.raises(error, match=words):
        published.read(path, "HWC-RGB-std", **given)


@pytest.mark.parametrize(("layout", "std"), [("HWC-RGB-std", None), ("HWC-RGB-255", STD)])
def test_std_is_for_the_networks_unit_and_for_nothing_else(tmp_path, layout, std):
    path = written(tmp_path / "v.npy", np.full((4, 4, 3), 10.0))
    with pytest.raises(ValueError, match=f"layout='{layout}' (needs|takes no) std"):
        published.read(path, layout, std=std)


@pytest.mark.parametrize("name", RELEASES)
def test_a_guess_has_the_reading_of_every_release(name, released):
    assert RELEASES[name].layout in set(published.guess(released(name)).layout)


def test_what_was_stretched_to_one_may_be_scaled(tmp_path):
    found = published.guess(written(tmp_path / "v.npy", np.full((3, 4, 4), -1.0)))
    assert 10 in set(found.scale[found.layout == "CHW-RGB-255"])
    assert published.read(tmp_path / "v.npy", "CHW-RGB-255", scale=10).delta.max().item() == pytest.approx(-10 / 255)


def test_a_guess_lists_all_readings_and_makes_none(tmp_path):
    path = written(tmp_path / "v.npy", np.full((4, 5, 3), -10.0))
    found = published.guess(path)
    assert list(found.layout) == ["HWC-RGB-255", "HWC-BGR-255", "WHC-RGB-255", "WHC-BGR-255"]
    assert list(found.height) == [4, 4, 5, 5]
    assert set(found.largest_255) == {10}
    assert found.l2_255[0] == pytest.approx(10 * math.sqrt(60), abs=0.1)
    for row in found.itertuples():
        assert published.read(path, row.layout, zero=row.zero, scale=row.scale).delta.shape[2] == row.height
    small = published.guess(written(tmp_path / "small.npy", np.full((3, 4, 4), 0.17)))
    assert set(small.layout) == {
        f"{axes}-{c}-{u}" for axes in ("CHW", "CWH") for c in ("RGB", "BGR") for u in ("1", "std")
    }
    Image.fromarray(np.full((4, 4, 3), 138, np.uint8)).save(tmp_path / "v.png")
    found = published.guess(tmp_path / "v.png")
    assert set(zip(found.zero, found.largest_255, strict=True)) == {(128, 10), (127.5, 0.82)}
    Image.fromarray(np.full((4, 4, 3), 255, np.uint8)).save(tmp_path / "v.png")
    assert set(published.guess(tmp_path / "v.png").scale) == {10 / 127.5}


@pytest.mark.parametrize(
    "values", [np.full((4, 4, 3), 1000.0), np.zeros((4, 4, 3)), np.full((4, 4, 2), 10.0), np.zeros((0, 4, 3))]
)
def test_what_is_a_perturbation_in_no_reading_is_refused(tmp_path, values):
    with pytest.raises(ValueError, match="is no perturbation in any layout: shape"):
        published.guess(written(tmp_path / "v.npy", values))


def test_the_reproduction_is_of_the_releases_as_they_are_read_now():
    found = published.reproduction()
    assert not found.duplicated(["perturbation", "layout", "set", "resize", "clip"]).any()
    for row in found[found.perturbation != "noise"].itertuples():
        release = RELEASES[row.perturbation]
        assert (row.delta_sha256 == release.delta_sha256[:16]) == (row.layout == release.layout)
    assert set(found.n) == {1000}
    assert (found.low < found.fooling_rate).all()
    assert (found.fooling_rate < found.high).all()
    assert (found.groupby(["set", "resize"]).pictures_sha256.nunique() == 1).all()
    assert set(found.weights_sha256) == {models.find("googlenet-caffe").weights_sha256[:16]}


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("uap-GoogLeNet", 4),
        ("uap-GoogLeNet-sfr-1", 4),
        ("fff-GoogLeNet", 2),
        ("gd-uap-data-GoogLeNet-authors", 2),
    ],
)
def test_read_rightly_each_file_that_others_could_misread_fools_most(name, points):
    found = published.reproduction()
    alike = found[(found.set == "nips2017") & found["clip"]]
    rates = alike[alike.perturbation == name].set_index("layout").fooling_rate
    assert len(rates) == 4
    assert rates.idxmax() == RELEASES[name].layout
    assert rates.max() > rates.drop(RELEASES[name].layout).max() + points


@pytest.mark.parametrize(
    ("name", "of_the_paper"),
    [
        ("uap-GoogLeNet", 78.9),
        ("gd-uap-none-GoogLeNet-authors", 58.62),
        ("gd-uap-range-GoogLeNet-authors", 71.44),
        ("gd-uap-data-GoogLeNet-authors", 83.54),
    ],
)
def test_on_the_papers_network_the_releases_fool_about_as_many_as_the_papers_say(name, of_the_paper):
    """The papers' photographs are others, so their numbers need not lie within the interval."""
    found = published.reproduction()
    alike = found[(found.set == "nips2017") & ~found["clip"] & (found.layout == RELEASES[name].layout)]
    (rate,) = alike[alike.perturbation == name].fooling_rate
    assert rate == pytest.approx(of_the_paper, abs=5)
