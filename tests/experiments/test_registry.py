"""The registry: what is in it of each file, and who reads it."""

import hashlib
import json

import torch

from uaplib.balls import linf
from uaplib.experiments import images, registry, store, studies
from uaplib.perturbation import UniversalPerturbation

SEEN = {"images": 3, "images_sha256": "a", "truth_sha256": "b"}


def test_an_entry_says_size_digest_seconds_and_readers(listed, tmp_path):
    folder = tmp_path / "artifacts"
    perturbation = UniversalPerturbation(torch.zeros(1, 1, 2, 2), linf(8), "uap", run={"seconds": 2.5})
    perturbation.save(folder / "net" / "z.safetensors")
    written = {"net/a.json": '{"run": {"seconds": 7}}', "images.json": '{"é": 1}', "cells/x.jsonl": "{}\n", "new": ""}
    for name, text in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "net" / "z.safetensors.part").write_text("a checkpoint")
    found = registry.make(folder, {11: None, 3: ["net/z.safetensors", "images.json"], 5: [], 2: ("images.json",)})
    assert list(found) == ["cells/x.jsonl", "images.json", "net/a.json", "net/z.safetensors", "new"]
    assert {name: entry.seconds for name, entry in found.items() if entry.seconds} == {
        "net/a.json": 7,
        "net/z.safetensors": 2.5,
    }
    assert {name: entry.chapters for name, entry in found.items() if entry.chapters} == {
        "images.json": (2, 3, 11),  # 11 read it before, as the registry says, and it is not known whether it still does
        "net/z.safetensors": (3,),
    }
    for name, entry in found.items():
        content = (folder / name).read_bytes()
        assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_what_has_no_time_on_record_has_none(listed, tmp_path):
    UniversalPerturbation(torch.zeros(1, 1, 2, 2), linf(8), "uap").save(tmp_path / "artifacts" / "z.safetensors")
    (tmp_path / "artifacts" / "z.json").write_text("{}")
    (tmp_path / "artifacts" / "y.json").write_text('{"run": {}}')
    found = registry.make(tmp_path / "artifacts", {})
    assert {name: (entry.seconds, entry.chapters) for name, entry in found.items()} == dict.fromkeys(
        ["y.json", "z.json", "z.safetensors"], (None, ())
    )


def test_what_is_written_is_read_again(listed, tmp_path):
    (tmp_path / "artifacts" / "net").mkdir(parents=True)
    (tmp_path / "artifacts" / "net" / "a.json").write_text('{"run": {"seconds": 0.5}}')
    found = registry.make(tmp_path / "artifacts", {8: ["net/a.json"], 10: ["net/a.json"]})
    registry.write(found)
    registry.entries.cache_clear()
    assert registry.entries() == found
    assert registry.chapters() == [8, 10]
    lines = listed.read_bytes().decode().splitlines(keepends=True)
    assert lines[0] == "name,size,sha256,seconds,chapters\n"
    assert lines[1].startswith("net/a.json,25,")
    assert lines[1].endswith(",0.5,8 10\n")


def test_the_digests_of_images_are_kept_by_what_a_network_sees(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(images, "at_hand", lambda *part: asked.append(part) or SEEN | {"images": len(asked)})
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path)
    parts = [
        ("resnet-mini", "evaluation", None),
        ("resnet-mini", "crafting", 50),
        ("efficientnet-lite0", "selection", 9),
    ]
    images.keep(parts)
    assert asked == parts
    expected = {
        "fashion-mnist, label": {"crafting-50": SEEN | {"images": 2}, "evaluation": SEEN | {"images": 1}},
        "imagenet-samples, efficientnet-lite0": {"selection-9": SEEN},
    }
    text = (tmp_path / "images.json").read_text(encoding="utf-8")
    assert text == json.dumps(expected, indent=2, sort_keys=True) + "\n"
    assert images.of_the_book("vgg16-mini", "crafting", 50) == SEEN | {"images": 2}


def test_every_perturbation_that_is_kept_is_read_by_a_chapter():
    """Else `uaplib get --chapter` leaves it behind: the registry was written before the chapter that reads it ran."""
    unread = [name for name, entry in registry.entries().items() if not entry.chapters]
    ours = [name for name in unread if not name.startswith(studies.SUBMISSIONS)]
    assert [name for name in ours if name.endswith(".safetensors")] == []
