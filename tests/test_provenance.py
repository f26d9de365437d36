import copy
import hashlib
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import uaplib
from uaplib import provenance


def test_versions_name_what_numbers_depend_on():
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["uaplib"] == uaplib.__version__
    assert {"python", "numpy", "torchvision"} <= versions.keys()


def held(**buffers):
    """A module that holds these buffers."""
    holder = nn.Module()
    for name, value in buffers.items():
        holder.register_buffer(name, value)
    return holder


def digest(**buffers):
    return provenance.weights_sha256(held(**buffers))


def test_equal_weights_in_different_networks_have_equal_digests(model):
    assert provenance.weights_sha256(model) == provenance.weights_sha256(copy.deepcopy(model))
    a, b = torch.ones(2), torch.zeros(2)
    assert digest(a=a, b=b) == digest(b=b.clone(), a=a.clone())


def test_one_bit_of_a_weight_or_a_buffer_changes_the_digest(model):
    before = provenance.weights_sha256(model)
    with torch.no_grad():
        model.network[0].bias[0] = model.network[0].bias[0].nextafter(torch.tensor(9.0, dtype=torch.float64))
    middle = provenance.weights_sha256(model)
    model.mean += 1e-9
    assert len({before, middle, provenance.weights_sha256(model)}) == 3


def test_names_types_shapes_values_and_their_places_each_change_the_digest():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    tensors = [
        {"a": a}, {"b": a}, {"a": b}, {"a": a.flip(0)}, {"a": a[None]}, {"a": a[:, None]},
        {"a": a.view(torch.int32)}, {"a": a.double()}, {"a": a, "b": b}, {"a": b, "b": a},
    ]  # fmt: skip
    assert len({digest(**each) for each in tensors}) == len(tensors)


def test_a_digest_of_images_is_the_sha256_of_their_bytes_in_order():
    images = torch.rand(2, 1, 3, 3)
    expected = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert provenance.sha256_of(images) == expected
    assert provenance.sha256_of(images.flip(0)) != expected
    assert provenance.sha256_of(images.mT.contiguous().mT) == expected
    assert provenance.images_record(images) == {"images": 2, "images_sha256": expected}


def test_a_digest_of_values_depends_on_each_but_not_on_the_order_of_keys():
    value = {"a": [1, 2], "b": None}
    assert provenance.digest(value) == provenance.digest({"b": None, "a": [1, 2]})
    others = [{"a": [2, 1], "b": None}, {"a": [1, 2]}, {"a": [1, 2], "b": 0}, {"a": [1.0, 2], "b": None}]
    assert len({provenance.digest(each) for each in [value, *others]}) == 5


def test_memory_layout_does_not_change_the_digest(model):
    before = provenance.weights_sha256(model)
    assert provenance.weights_sha256(model.to(memory_format=torch.channels_last)) == before


def test_the_commit_is_the_checkouts_whatever_the_working_folder_is(monkeypatch, tmp_path):
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("this is no clone")
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    assert provenance.commit() == asked.stdout.strip()
    assert len(provenance.commit()) == 40


def test_no_commit_without_git(monkeypatch):
    def missing(*arguments, **keywords):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.commit() is None


def test_no_commit_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None
