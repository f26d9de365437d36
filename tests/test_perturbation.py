import errno
import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from uaplib.balls import NormBall
from uaplib.perturbation import FITS, UniversalPerturbation, identity, noise

BALL = NormBall(math.inf, 10 / 255)


@pytest.fixture
def perturbation():
    delta = BALL.sample((1, 3, 8, 8), torch.Generator().manual_seed(0))
    return UniversalPerturbation(delta, BALL, "uap", source="vgg16-mini", source_sha256="ab", seed=3,
                                 parameters={"clip": True, "rate": 0.1}, history=[{"pass": 0, "rate": 1 / 3}],
                                 run={"commit": None})  # fmt: skip


def images(value, channels=3):
    return torch.full((2, channels, 8, 8), value)


@given(value=st.floats(0, 1, width=32), seed=st.integers(0, 99), eps=st.floats(0, 1))
def test_the_clipped_sum_stays_in_range_and_within_the_budget(value, seed, eps):
    perturbation = noise(NormBall(math.inf, eps), (3, 8, 8), seed)
    applied = perturbation.apply(images(value))
    assert applied.min() >= 0
    assert applied.max() <= 1
    assert (applied - images(value)).abs().max() <= eps + 1e-6


def test_the_unclipped_sum_is_the_sum(perturbation):
    assert torch.equal(perturbation.apply(images(1.0), clip=False), 1 + perturbation.delta.expand(2, -1, -1, -1))


def test_the_sum_has_the_type_of_the_images(perturbation):
    assert perturbation.apply(images(0.5).half()).dtype == torch.float16


def test_a_perturbation_may_leave_its_budget_by_the_rounding_of_its_type():
    delta = torch.full((1, 1, 2, 2), 10 / 255).half()  # half a thousandth above, as far as float16 can tell
    assert UniversalPerturbation(delta, NormBall(math.inf, delta.max().item() * 0.9995), "uap").ball.p == math.inf
    with pytest.raises(ValueError, match="out of its budget"):
        UniversalPerturbation(delta.float(), NormBall(math.inf, delta.max().item() * 0.9995), "uap")


def test_images_of_another_size_get_the_remedy(perturbation):
    with pytest.raises(ValueError, match=r"delta is \(3, 8, 8\), images are \(1, 8, 8\); use perturbation.fitted"):
        perturbation.apply(images(0.5, channels=1))


def test_images_out_of_range_are_refused(perturbation):
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        perturbation.apply(images(2.0))


@pytest.mark.parametrize(
    ("delta", "error", "message"),
    [
        (torch.zeros(3, 8, 8), ValueError, "delta must have four dimensions"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"delta must have shape \(1, C, H, W\), not \(2, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, "delta must be floating point"),
        (torch.full((1, 3, 8, 8), math.nan), ValueError, "delta contains NaN"),
        (torch.full((1, 3, 8, 8), 0.04), ValueError, "delta has norm 0.04, out of its budget l∞ ≤ 10/255"),
    ],
)
def test_a_bad_delta_is_refused(delta, error, message):
    with pytest.raises(error, match=message):
        UniversalPerturbation(delta, BALL, "uap")


@given(
    p=st.sampled_from([2, math.inf]),
    height=st.integers(1, 30),
    mode=st.sampled_from(["bilinear", "bicubic", "nearest"]),
)
def test_resizing_keeps_the_budget_and_is_recorded(p, height, mode):
    ball = NormBall(p, 0.1)
    resized = noise(ball, (1, 8, 8)).resized(height, 9, mode=mode)
    assert resized.delta.shape == (1, 1, height, 9)
    assert ball.contains(resized.delta, tolerance=1e-5)
    assert resized.run["resized"] == {"from": [8, 8], "to": [height, 9], "mode": mode}


def test_made_smaller_each_value_is_a_mean_of_those_that_it_replaces(perturbation):
    expected = F.interpolate(perturbation.delta, (3, 4), mode="bilinear", antialias=True)
    assert torch.equal(perturbation.resized(3, 4).delta, BALL.project(expected))


@pytest.mark.parametrize(("height", "width"), [(3, 4), (5, 6), (9, 13)])
def test_tiles_keep_every_pixel(perturbation, height, width):
    found, (own_height, own_width) = perturbation.tiled(height, width), perturbation.delta.shape[2:]
    assert found.delta.shape == (1, 3, height, width)
    for row in range(height):
        for column in range(width):
            expected = perturbation.delta[..., row % own_height, column % own_width]
            assert torch.equal(found.delta[..., row, column], expected)
    assert found.run["resized"] == {"from": [own_height, own_width], "to": [height, width], "mode": "tiled"}
    assert "resized" not in perturbation.run


def test_tiles_stay_in_an_l2_ball():
    ball = NormBall(2, 1.0)
    found = noise(ball, (1, 4, 4)).tiled(8, 8)
    assert found.delta.norm().item() == pytest.approx(1.0)


def test_fitted_to_images_of_its_own_size_it_is_itself_and_to_others_tiled_or_resized(perturbation):
    others = torch.zeros(5, 3, 4, 6)
    for how in FITS:
        assert perturbation.fitted(images(0.5), how) is perturbation
    assert torch.equal(perturbation.fitted(others).delta, perturbation.tiled(4, 6).delta)
    assert torch.equal(perturbation.fitted(others, "tiled").delta, perturbation.tiled(4, 6).delta)
    assert torch.equal(perturbation.fitted(others, "resized").delta, perturbation.resized(4, 6).delta)
    for each in (others, images(0.5)):
        with pytest.raises(ValueError, match="fit='tile' is unknown. Did you mean 'tiled'"):
            perturbation.fitted(each, "tile")
    with pytest.raises(ValueError, match=r"3 channels \(crafted on vgg16-mini\) does not fit images of 1$"):
        perturbation.fitted(images(0.5, channels=1))


def test_resizing_leaves_the_original_alone(perturbation):
    perturbation.resized(4, 4)
    assert perturbation.delta.shape == (1, 3, 8, 8)
    assert "resized" not in perturbation.run


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_what_is_saved_is_loaded(perturbation, tmp_path, dtype):
    perturbation.delta = perturbation.delta.to(dtype)
    perturbation.save(tmp_path / "v")
    loaded = UniversalPerturbation.load(tmp_path / "v")
    assert torch.equal(loaded.delta, perturbation.delta)
    assert loaded.delta.dtype == dtype
    assert {**vars(loaded), "delta": 0} == {**vars(perturbation), "delta": 0}


@given(p=st.sampled_from([2, math.inf]), eps=st.floats(0, 1e6))
def test_the_budget_survives_the_file_bit_for_bit(p, eps, tmp_path_factory):
    path = tmp_path_factory.mktemp("ball") / "v"
    UniversalPerturbation(torch.zeros(1, 1, 2, 2), NormBall(p, eps), "uap").save(path)
    assert UniversalPerturbation.load(path).ball == NormBall(p, eps)


def test_the_same_perturbation_gives_the_same_file(perturbation, tmp_path):
    perturbation.save(tmp_path / "a")
    perturbation.parameters = dict(reversed(perturbation.parameters.items()))
    perturbation.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_tensor_that_needs_gradients_or_is_a_view_is_saved(tmp_path):
    delta = torch.zeros(1, 8, 8, 3).permute(0, 3, 1, 2).requires_grad_()
    UniversalPerturbation(delta, BALL, "uap").save(tmp_path / "v")
    assert UniversalPerturbation.load(tmp_path / "v").delta.shape == (1, 3, 8, 8)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no perturbation at {tmp_path / 'v'}"):
        UniversalPerturbation.load(tmp_path / "v")


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("the pickle was executed",)


def pickled(path):
    path.write_bytes(pickle.dumps(Malicious()))


def torch_saved(path):
    torch.save({"delta": torch.zeros(1, 1, 2, 2), "x": Malicious()}, path)


def foreign(path):
    save_file({"delta": torch.zeros(1, 1, 2, 2)}, path)


def foreign_metadata(path):
    save_file({"delta": torch.zeros(1, 1, 2, 2)}, path, metadata={"uaplib": "not json"})


def a_ball_of_text(path):
    record = {"ball": "l2", "method": "uap"}
    save_file({"delta": torch.zeros(1, 1, 2, 2)}, path, metadata={"uaplib": json.dumps(record)})


def out_of_budget(path):
    record = {"ball": {"p": "2.0", "eps": "1.0"}, "method": "uap"}
    save_file({"delta": torch.ones(1, 1, 2, 2)}, path, metadata={"uaplib": json.dumps(record)})


def another_tensor(path):
    record = {"ball": {"p": "2.0", "eps": "1.0"}, "method": "uap"}
    save_file({"v": torch.zeros(1, 1, 2, 2)}, path, metadata={"uaplib": json.dumps(record)})


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("a perturbation" * 50)


@pytest.mark.parametrize(
    "write",
    [pickled, torch_saved, foreign, foreign_metadata, a_ball_of_text, out_of_budget, another_tensor,
     empty, text],
)  # fmt: skip
def test_another_kind_of_file_is_refused(tmp_path, write):
    write(tmp_path / "v")
    with pytest.raises(ValueError, match="v is not a perturbation written by uaplib, or it is damaged"):
        UniversalPerturbation.load(tmp_path / "v")


def test_what_is_wrong_with_a_record_is_said_and_how_to_bring_in_the_file_of_another_program(tmp_path):
    out_of_budget(tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match=r"it is damaged: delta has norm 2, out of its budget l2 ≤ 1[^\n]*$"):
        UniversalPerturbation.load(tmp_path / "v.safetensors")
    text(tmp_path / "v.NPY")
    with pytest.raises(ValueError, match=r"damaged\.\nIt seems to be a file of NumPy: bring it in by `uaplib import"):
        UniversalPerturbation.load(tmp_path / "v.NPY")
    text(tmp_path / "v")
    with pytest.raises(ValueError, match="it is damaged$"):
        UniversalPerturbation.load(tmp_path / "v")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(perturbation, tmp_path, kept):
    perturbation.save(tmp_path / "v")
    content = (tmp_path / "v").read_bytes()
    (tmp_path / "v").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="it is damaged"):
        UniversalPerturbation.load(tmp_path / "v")


def test_a_full_disk_raises_oserror_and_leaves_nothing(perturbation, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        perturbation.save(tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_stops_growing_while_written_raises_oserror_and_leaves_nothing(perturbation, tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            perturbation.save(tmp_path / "v")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "error"), [(object(), TypeError), (math.nan, ValueError)])
def test_a_parameter_that_json_cannot_hold_is_refused_and_nothing_is_left(perturbation, tmp_path, value, error):
    perturbation.parameters["x"] = value
    with pytest.raises(error):
        perturbation.save(tmp_path / "v")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("p", [2, math.inf])
def test_noise_uses_the_whole_budget_and_repeats(p):
    ball = NormBall(p, 0.3)
    first, second, other = noise(ball, (1, 8, 8)), noise(ball, (1, 8, 8)), noise(ball, (1, 8, 8), seed=1)
    assert ball.norm(first.delta).item() == pytest.approx(0.3)
    assert torch.equal(first.delta, second.delta)
    assert not torch.equal(first.delta, other.delta)
    assert (first.method, first.seed, other.seed) == ("noise", 0, 1)


def test_a_file_of_a_later_version_says_that_it_is_one(tmp_path):
    record = {"ball": {"p": "2.0", "eps": "1.0"}, "method": "uap", "colour": "red", "versions": {"uaplib": "7.1"}}
    save_file({"delta": torch.zeros(1, 1, 2, 2)}, tmp_path / "v", metadata={"uaplib": json.dumps(record)})
    message = r"v was written by a later version of uaplib \(7.1\), which also keeps colour; update uaplib"
    with pytest.raises(ValueError, match=message):
        UniversalPerturbation.load(tmp_path / "v")


def test_a_value_counts_as_saturated_only_where_the_whole_budget_is_used():
    values = torch.tensor([1.0, -1.0, 0.999, -0.95, 0.9, 0.0]).view(1, 1, 2, 3)
    found = UniversalPerturbation(0.1 * values, NormBall(math.inf, 0.1), "made")
    assert found.saturation == pytest.approx(2 / 6)


NUMBERS = {"int64": np.int64(3), "float32": np.float32(0.5), "bool": np.bool_(True), "tensor": torch.tensor(2)}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_numpy_and_torch_are_kept_as_pythons(tmp_path, number):
    seed = np.int64(4)
    kept = UniversalPerturbation(
        torch.zeros(1, 1, 2, 2), NormBall(2, np.float32(0.5)), "x", seed=seed, parameters={"a": number},
        history=[{"b": number}], run={"c": number},
    )  # fmt: skip
    kept.save(tmp_path / "v")
    found = UniversalPerturbation.load(tmp_path / "v")
    assert found.parameters["a"] == found.history[0]["b"] == found.run["c"] == number.item()
    assert (found.seed, type(found.seed)) == (4, int)
    assert found.identity == kept.identity


def test_the_identity_is_all_that_a_perturbation_depends_on_and_nothing_else():
    base = {"delta": torch.zeros(1, 1, 2, 2), "ball": NormBall(2, 0.5), "method": "x", "seed": 1,
            "source_sha256": "a", "parameters": {"steps": 3}}  # fmt: skip
    changes = [{"version": 2}, {"delta": torch.zeros(1, 1, 2, 3)},
               {"ball": NormBall(2, 0.6)}, {"ball": NormBall(math.inf, 0.5)}, {"method": "y"}, {"seed": 2},
               {"source_sha256": "b"}, {"parameters": {"steps": 4}}]  # fmt: skip
    first = UniversalPerturbation(**base).identity
    assert first == {
        "method": "x", "version": 1, "ball": {"p": "2.0", "eps": "0.5"}, "source_sha256": "a", "seed": 1,
        "parameters": {"steps": 3}, "shape": [1, 1, 2, 2],
    }  # fmt: skip
    assert identity("x", NormBall(2, 0.5), "a", 1, {"steps": np.int64(3)}, (1, 1, 2, 2)) == first
    assert all(UniversalPerturbation(**(base | change)).identity != first for change in changes)
    same = base | {"history": [{"rate": 1}], "run": {"seconds": 2.0}, "versions": {}, "source": "renamed"}
    assert UniversalPerturbation(**same).identity == first
