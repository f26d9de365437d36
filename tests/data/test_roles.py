"""What holds for every data set: no image plays two roles, and its row says whence it comes and under which licence."""

import re

import numpy as np
import pytest
import torch

from tests.conftest import or_skip
from uaplib import data
from uaplib.data import DATA_SETS, DATASETS, ROLES, camvid, fashion_mnist, pictures, scenes

FEW = dict.fromkeys([name for name, row in DATA_SETS.items() if row.roles], 6)
FEW |= {"fashion-mnist": None, "imagenet-samples": 12, "scenes": 3}  # None: all, they are cheap
every = pytest.mark.parametrize("name", DATA_SETS)
with_roles = pytest.mark.parametrize("name", FEW)


def small(picture):
    return torch.from_numpy(np.array(picture.convert("RGB").resize((40, 32)))).permute(2, 0, 1) / 255


def how(name):
    return {"preprocessing": small} if DATA_SETS[name].photographs else {}


def load(name, role, count):
    """At most so many: of photographs there may be only foolbox's twenty."""
    return or_skip(lambda: data.load(name, role, count and min(count, data.most(name, role)), **how(name)))


def pixels(images):
    """The pixels of each image as bytes."""
    return [image.tobytes() for image in (255 * images).round().byte().numpy()]


def roles(name):
    """Those that images of the data set play, but for the foreground, which is of crafting scenes."""
    return [role for role in DATA_SETS[name].roles if role in ROLES]


@pytest.fixture(scope="module", params=FEW)
def parts(request):
    """The name of a data set with roles, and what plays each."""
    return request.param, {role: load(request.param, role, FEW[request.param]) for role in roles(request.param)}


def test_no_image_plays_two_roles(parts):
    seen = [image for found in parts[1].values() for image in pixels(found.images)]
    assert len(set(seen)) == len(seen)


def test_images_are_in_range_and_belong_to_what_is_known_of_them(parts):
    name, found = parts
    row = DATA_SETS[name]
    size = (row.size, row.size) if isinstance(row.size, int) else row.size or (32, 40)
    for part in found.values():
        assert part._fields[0] == "images"
        assert {"label": "labels", "classes": "labels"}.get(row.tasks[0]) in part._fields
        assert ("depth" in part._fields) == ("depth" in row.tasks)
        assert (part.images.dtype, part.images.shape[2:]) == (torch.float32, size)
        assert 0 <= part.images.min() < 0.2
        assert 0.8 < part.images.max() <= 1
        assert part.labels.dtype == torch.int64
        assert part.labels.shape == (part.images.shape[:1] if row.tasks[0] == "label" else (len(part.images), *size))


def test_as_many_as_asked_for_come_in_the_same_order(parts):
    name, found = parts
    for role, part in found.items():
        two = load(name, role, 2)
        assert len(two.images) == 2
        assert all(torch.equal(few, many[:2]) for few, many in zip(two, part, strict=True))


@pytest.mark.parametrize(
    ("module", "role", "split"),
    [
        (module, role, split)
        for module in (camvid, scenes)
        for role, split in [("crafting", "train"), ("selection", "val"), ("evaluation", "test")]
    ],
)
def test_a_split_plays_a_role(module, role, split):
    name = module.__name__.split(".")[-1]
    expected = or_skip(module.load, split, 2)
    assert all(torch.equal(a, b) for a, b in zip(data.load(name, role, 2), expected, strict=True))


def test_one_crafts_and_selects_on_clothes_for_training_and_evaluates_on_those_for_testing(crafting_clothes, clothes):
    train, test = fashion_mnist.load("train"), fashion_mnist.load("test")
    expected = {
        "crafting": [part[:55_000] for part in train],
        "selection": [part[55_000:] for part in train],
        "evaluation": test,
    }
    for role, (images, labels) in expected.items():
        found = data.load("fashion-mnist", role)
        assert torch.equal(found.images, images)
        assert torch.equal(found.labels, labels)
        assert data.most("fashion-mnist", role) == len(images)


@pytest.mark.parametrize("role", ROLES)
def test_photographs_play_their_roles(role):
    files = or_skip(pictures.for_role, role)
    assert torch.equal(load("imagenet-samples", role, 2).images, files[:2].load(small).images)
    assert data.most("imagenet-samples", role) == len(files)
    assert data.describe("imagenet-samples", role) == files.source


def test_the_images_of_nips_2017_evaluate_by_either_name():
    found = or_skip(lambda: data.load("nips2017", "evaluation", 2, small))
    assert all(torch.equal(*each) for each in zip(found, load("imagenet-samples", "evaluation", 2), strict=True))


@pytest.mark.parametrize(("role", "count"), [("crafting", 6), ("selection", 2), ("evaluation", 12)])
def test_without_the_samples_foolboxs_pictures_play_the_roles_and_a_warning_says_so(no_data, role, count):
    pytest.importorskip("foolbox")
    with pytest.warns(UserWarning, match=f"for {role} there are only {count} of foolbox's pictures") as warned:
        found = data.load("imagenet-samples", role, count, small)
    assert len(warned) == 1
    assert len(found.images) == data.most("imagenet-samples", role) == count
    assert data.describe("imagenet-samples", role) == "foolbox's twenty pictures"


@pytest.mark.parametrize(
    ("name", "role", "words"),
    [
        ("fashion-mnist", "crafting", "Fashion-MNIST, train split"),
        ("fashion-mnist", "selection", "Fashion-MNIST, train split, from image 55,000 on"),
        ("fashion-mnist", "evaluation", "Fashion-MNIST, test split"),
        ("camvid", "crafting", "camvid, train split"),
        ("camvid", "foreground", "camvid, train split"),
        ("camvid", "evaluation", "camvid, test split"),
        ("scenes", "selection", "scenes, val split"),
        ("scenes", "evaluation", "scenes, test split"),
    ],
)
def test_where_images_come_from_is_told(name, role, words):
    assert data.describe(name, role) == words


def test_the_foreground_is_the_crafting_scenes_with_most_objects():
    crafting = data.load("scenes", "crafting", 11)
    objects = [sum(label in (3, 4, 5) for label in each.flatten().tolist()) for each in crafting.labels]
    most = sorted(range(11), key=lambda number: -objects[number])[:3]  # 28 % of eleven
    found = data.load("scenes", "foreground", 11)
    assert type(found) is scenes.Scenes
    assert all(torch.equal(part, every[most]) for part, every in zip(found, crafting, strict=True))


def test_the_foreground_is_chosen_from_300_scenes_and_is_never_empty(monkeypatch):
    asked = []

    def spy(role, count=None):
        asked.append((role, count))
        return scenes.load("val", 2)

    monkeypatch.setattr(scenes, "load_role", spy)
    assert len(data.load("scenes", "foreground").images) == 1
    data.load("scenes", "foreground", 7)
    assert asked == [("crafting", 300), ("crafting", 7)]


@pytest.mark.parametrize(("name", "role"), [(name, role) for name in FEW for role in roles(name)])
def test_an_impossible_count_is_refused_by_name(name, role):
    there = or_skip(data.most, name, role)
    for count in (0, -3):
        with pytest.raises(ValueError, match=f"count must be at least 1, not {count}"):
            data.load(name, role, count, **how(name))
    with pytest.raises(ValueError, match=f"count={there + 1} is more than the {there:,} {role} images of {name}"):
        data.load(name, role, there + 1, **how(name))
    for count in (2.5, True, "2"):
        with pytest.raises(TypeError, match="count must be a whole number"):
            data.load(name, role, count, **how(name))


def test_scenes_can_be_more_than_a_split_has(monkeypatch):
    monkeypatch.setattr(scenes, "SPLITS", {"train": 2, "val": 2, "test": 2})
    assert len(data.load("scenes", "evaluation").images) == 2
    assert len(data.load("scenes", "evaluation", 3).images) == 3
    assert data.most("scenes", "evaluation") == 1_000_000


@pytest.mark.parametrize("call", [data.load, data.most, data.describe])
def test_unknown_names_and_roles_get_suggestions(call):
    with pytest.raises(ValueError, match="name='camvit' is unknown. Did you mean 'camvid'"):
        call("camvit", "crafting")
    with pytest.raises(ValueError, match="role='crafted' is unknown. Did you mean 'crafting'"):
        call("scenes", "crafted")
    with pytest.raises(ValueError, match="role='foreground' is unknown"):
        call("fashion-mnist", "foreground")
    with pytest.raises(ValueError, match=r"'depth-folders' has no roles.*uaplib.data.depth_folders.load\(folder, kind"):
        call("depth-folders", "crafting")


@with_roles
def test_photographs_alone_need_a_preprocessing(name):
    if DATA_SETS[name].photographs:
        with pytest.raises(ValueError, match=f"preprocessing is needed for {name}"):
            data.load(name, "evaluation", 1)
    else:
        with pytest.raises(ValueError, match=f"preprocessing must be None for {name}"):
            data.load(name, "evaluation", 1, small)


@every
def test_a_row_says_what_the_data_set_is_its_licence_and_how_to_get_it(monkeypatch, name):
    monkeypatch.setenv("UAPLIB_DATA", "/my data")
    row = DATA_SETS[name]
    assert row.title
    assert row.licence
    assert set(row.tasks) <= {"label", "classes", "depth"}
    assert DATASETS[name] is row.code
    assert row.code.__name__ == f"uaplib.data.{row.module}"
    words = row.how_to_get()
    assert "{" not in words
    if "git clone" in words:
        assert row.url in words
        assert f"'/my data/{row.folder}'" in words


def test_a_name_is_one_word():
    assert not any(re.search(r"\s", name) for name in DATA_SETS)
