import subprocess

import torch
from torch import nn

import uaplib
from uaplib import provenance


def test_versions_name_what_numbers_depend_on():
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["uaplib"] == uaplib.__version__
    assert {"python", "numpy", "torchvision"} <= versions.keys()


def test_equal_weights_have_equal_digests(model):
    assert provenance.weights_sha256(model) == provenance.weights_sha256(model)


def test_one_bit_of_a_weight_or_a_buffer_changes_the_digest(model):
    before = provenance.weights_sha256(model)
    with torch.no_grad():
        model.network[0].bias[0] = model.network[0].bias[0].nextafter(torch.tensor(9.0, dtype=torch.float64))
    middle = provenance.weights_sha256(model)
    model.mean += 1e-9
    assert len({before, middle, provenance.weights_sha256(model)}) == 3


def test_the_digest_depends_on_names_and_shapes():
    def digest(key, value):
        holder = nn.Module()
        holder.register_buffer(key, value)
        return provenance.weights_sha256(holder)

    digests = {digest("a", torch.zeros(4)), digest("b", torch.zeros(4)), digest("a", torch.zeros(2, 2)),
               digest("a", torch.zeros(2, dtype=torch.float64))}  # fmt: skip
    assert len(digests) == 4


def test_memory_layout_does_not_change_the_digest(model):
    before = provenance.weights_sha256(model)
    assert provenance.weights_sha256(model.to(memory_format=torch.channels_last)) == before


def test_no_commit_without_git(monkeypatch):
    def missing(*arguments, **keywords):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.commit() is None


def test_no_commit_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None
