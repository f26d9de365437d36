"""A test that needs data is skipped where the very files are missing, whatever folders are there."""

import pytest

from tests.conftest import or_skip
from uaplib import published
from uaplib.data import camvid, fashion_mnist, nips2017, pictures
from uaplib.experiments import images, images_for

FOLDERS = {
    "nothing": [],
    "what a failed download once left": [
        "fashion-mnist", "imagenet-samples", *(f"published-perturbations/{name}" for name in
        ("universal-lts4", "fast-feature-fool", "pytorch-gd-uap", "gd-uap", "selective-feature-regeneration")),
        "nips2017/images",
        *(f"camvid/{split}{part}" for split in ("train", "val", "test") for part in ("", "annot")),
    ],
}  # fmt: skip


@pytest.fixture(params=FOLDERS)
def empty(request, no_data):
    images._load.cache_clear()
    for folder in FOLDERS[request.param]:
        (no_data / folder).mkdir(parents=True)
    return no_data


@pytest.mark.parametrize(
    ("load", "arguments", "file"),
    [
        (fashion_mnist.load, ["train", 1], "train-images-idx3-ubyte.gz is not there"),
        (fashion_mnist.load, ["test", 1], "t10k-images-idx3-ubyte.gz is not there"),
        (images_for, ["resnet-mini", "evaluation"], "t10k-images-idx3-ubyte.gz is not there"),
        (images_for, ["unet-camvid", "evaluation"], "CamVid's 233 scenes for test were not found"),
        (camvid.load, ["val"], "CamVid's 101 scenes for val were not found"),
        (pictures.samples, ["crafting"], "the 1,000 ImageNet samples were not found"),
        (nips2017.pictures, [], "NIPS 2017's 1,000 images and dev_dataset.csv were not found"),
    ],
)
def test_a_loader_without_its_files_skips_the_test_and_says_which(empty, load, arguments, file):
    with pytest.raises(pytest.skip.Exception, match=file) as caught:
        or_skip(load, *arguments)
    assert str(empty) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loader_that_finds_its_files_is_asked_once():
    assert or_skip(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize("error", [ValueError("damaged"), PermissionError(13, "Permission denied"), TypeError()])
def test_nothing_but_a_missing_file_skips_a_test(error):
    def load():
        raise error

    with pytest.raises(type(error)):
        or_skip(load)


@pytest.mark.parametrize(
    "name", ["uap-VGG-16", "fff-CaffeNet", "gd-uap-none-ResNet-50", "gd-uap-data-VGG-F-authors", "uap-VGG-F-sfr"]
)
def test_a_released_file_is_asked_for_by_its_name(empty, released, name):
    file = published.file_of(name)
    with pytest.raises(pytest.skip.Exception, match="is not there") as caught:
        released(name)
    assert str(file) in str(caught.value)
    other = published.file_of("uap-Inception")
    other.parent.mkdir(parents=True, exist_ok=True)
    other.touch()
    with pytest.raises(pytest.skip.Exception):
        released(name)
    assert released("uap-Inception") == other
