"""Photographs: which files belong to which part, and what is said when they are missing."""

import hashlib
import io
import math
import os
import urllib.error
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

import uaplib.files
from uaplib.data import nips2017, pictures

TENSOR = v2.Compose([v2.RGB(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
WNIDS = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
         "n03445777", "n03888257"]  # fmt: skip
PARTS = ("crafting", "selection", "evaluation")


def picture(grey=100):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (grey,) * 3).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    return tmp_path


def write_samples(folder, order=range(1000)):
    (folder / "imagenet-samples").mkdir()
    (folder / "imagenet-samples" / "README.md").write_text("not a picture")
    content = picture()
    for index in order:
        (folder / "imagenet-samples" / f"n{3 * index + 1:08d}_x.JPEG").write_bytes(content)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A data folder with a thousand tiny pictures."""
    folder = tmp_path_factory.mktemp("data")
    write_samples(folder)
    return folder


@pytest.fixture
def samples(thousand, monkeypatch):
    monkeypatch.setenv("UAPLIB_DATA", str(thousand))
    return {part: pictures.samples(part) for part in PARTS}


def test_the_parts_are_disjoint_and_hold_everything(samples):
    assert [len(samples[part]) for part in PARTS] == [300, 100, 600]
    files = [file for part in PARTS for file in samples[part].files]
    assert len(set(files)) == len(files) == 1000


def test_a_class_is_the_position_of_its_file_name(samples):
    for part in samples.values():
        assert [int(file.stem[1:9]) for file in part.files] == [3 * index + 1 for index in part.classes]


def test_every_part_is_a_mixture_of_all_classes(samples):
    for part in samples.values():
        spread = 1000 / math.sqrt(12 * len(part))
        assert sum(part.classes) / len(part) == pytest.approx(499.5, abs=4 * spread)
        assert part.classes != sorted(part.classes)


def test_the_parts_are_the_same_on_every_machine(samples, data, monkeypatch):
    write_samples(data, order=reversed(range(1000)))
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: reversed(list(listed(folder, pattern))))
    for part, expected in samples.items():
        found = pictures.samples(part)
        assert found.classes == expected.classes
        assert [file.name for file in found.files] == [file.name for file in expected.files]
    assert samples["crafting"].classes[:5] == [706, 511, 807, 248, 275]


def test_another_part_is_refused(samples):
    with pytest.raises(ValueError, match="part='crafted' is unknown. Did you mean 'crafting'"):
        pictures.samples("crafted")


@pytest.mark.parametrize(("call", "name"), [(pictures.samples, "part"), (pictures.for_role, "role")])
def test_another_part_is_refused_where_there_is_no_picture_too(data, call, name):
    with pytest.raises(ValueError, match=f"{name}='crafted' is unknown. Did you mean 'crafting'"):
        call("crafted")


@pytest.mark.parametrize("files", [None, 0, 999, 1001])
@pytest.mark.usefixtures("checkout")
def test_missing_samples_get_the_command_that_fetches_them(data, files):
    if files is not None:
        write_samples(data, range(files))
    with pytest.raises(FileNotFoundError, match=f"{files or 0} files there") as caught:
        pictures.samples("crafting")
    move = "" if files is None else "move that folder away, then: "
    clone = f"git clone --depth 1 {pictures.ABOUT.url} {data / 'imagenet-samples'}"
    assert str(caught.value).splitlines()[1:] == [f"Get them by: {move}{clone}"]


def test_an_installed_library_names_the_address_of_the_samples(data, monkeypatch):
    monkeypatch.setattr(uaplib.files, "__file__", str(data / "uaplib" / "files.py"))
    with pytest.raises(FileNotFoundError) as caught:
        pictures.samples("crafting")
    assert str(caught.value) == (
        f"the 1,000 ImageNet samples were not found in {data / 'imagenet-samples'} (0 files there).\n"
        f"Get them from {pictures.ABOUT.url} and put its pictures (n*.JPEG) into that folder."
    )


def test_pictures_are_loaded_with_their_labels(samples):
    images, labels = samples["evaluation"][:7].load(TENSOR)
    assert (images.shape, images.dtype) == ((7, 3, 8, 8), torch.float32)
    assert images.mean().item() == pytest.approx(100 / 255, abs=0.01)
    assert labels.dtype == torch.int64
    assert labels.tolist() == list(samples["evaluation"].classes[:7])


@pytest.mark.parametrize("content", [b"", b"not a picture", picture()[:-300]])
def test_a_damaged_picture_is_named(tmp_path, content):
    (tmp_path / "good.JPEG").write_bytes(picture())
    (tmp_path / "bad.JPEG").write_bytes(content)
    found = pictures.Pictures([tmp_path / "good.JPEG", tmp_path / "bad.JPEG"], [3, 4])
    assert found[:1].load(TENSOR)[1].tolist() == [3]
    with pytest.raises(ValueError, match="bad.JPEG is not a readable picture"):
        found.load(TENSOR)


def test_a_picture_that_is_gone_is_named(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="gone.JPEG"):
        pictures.Pictures([tmp_path / "gone.JPEG"], [0]).load(TENSOR)


def test_foolbox_carries_twenty_pictures():
    pytest.importorskip("foolbox")
    found = pictures.foolbox_pictures()
    assert len(found) == len(found.files) == len(found.classes) == 20
    images, labels = found[:3].load(v2.Compose([v2.CenterCrop(224), TENSOR]))
    assert images.shape == (3, 3, 224, 224)
    assert labels.tolist() == list(found.classes[:3])
    assert set(found.classes) <= set(range(1000))
    assert len(set(found.classes)) > 10
    assert all(file.stem.endswith(f"_{label}") for file, label in zip(found.files, found.classes, strict=True))


def test_without_the_samples_the_twenty_pictures_are_shared_out(data):
    pytest.importorskip("foolbox")
    parts = [pictures.for_role(part) for part in PARTS]
    assert [len(part) for part in parts] == [6, 2, 12]
    assert len({file for part in parts for file in part.files}) == 20


def test_the_samples_come_first(samples):
    assert pictures.for_role("selection") == samples["selection"]
    assert pictures.for_role("selection").credits == ()


def test_the_digest_of_pictures_is_of_their_contents_in_order(tmp_path):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_bytes(file.name.encode())
    assert pictures.Pictures(files, [0, 1]).sha256() == hashlib.sha256(b"ab").hexdigest()
    assert pictures.Pictures(files[::-1], [1, 0]).sha256() == hashlib.sha256(b"ba").hexdigest()


def test_all_samples_are_in_the_order_of_their_classes(samples):
    everything = pictures.all_samples()
    assert [*everything.classes] == list(range(1000))
    assert [file.name for file in everything.files] == sorted(file.name for file in everything.files)
    for part in samples.values():
        assert all(everything.files[index] == file for file, index in zip(part.files, part.classes, strict=True))


def write_nips(folder, ending="png", credits=True):
    """The thousand images of NIPS 2017, all alike, and their table, into a data folder."""
    (folder / "nips2017" / "images").mkdir(parents=True)
    rows = ["ImageId,URL,TrueLabel,TargetClass" + (",OriginalLandingURL,License,Author" if credits else "")]
    for number in range(1000):
        name = f"{7 * number % 1000:04x}"
        (folder / "nips2017" / "images" / f"{name}.{ending}").write_bytes(picture())
        rows.append(f"{name},https://example.org,{number + 1},5" + (f",page{number},CC,Ann" if credits else ""))
    (folder / "nips2017" / "dev_dataset.csv").write_text("\n".join(rows) + "\n")


def test_names_of_photographers_are_read_as_the_table_writes_them(data):
    write_nips(data)
    table = data / "nips2017" / "dev_dataset.csv"
    table.write_text(table.read_text().replace(",Ann", r",Fr\303\251d\303\251ric \354\240\204", 1))
    assert nips2017.pictures().credits[:2] == ["Frédéric 전, CC, page0", "Ann, CC, page1"]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_images_of_nips_2017_come_in_the_order_of_their_table(data, ending):
    write_nips(data, ending)
    found = nips2017.pictures()
    assert [file.stem for file in found.files[:3]] == ["0000", "0007", "000e"]
    assert found.classes == list(range(1000))  # the table counts from 1
    assert found[:1].load(TENSOR).images.shape == (1, 3, 8, 8)
    assert found[2:4].credits == ["Ann, CC, page2", "Ann, CC, page3"]
    assert nips2017.most("evaluation") == 1000
    assert torch.equal(nips2017.load_role("evaluation", 2, TENSOR).labels, torch.tensor([0, 1]))
    found.files[3].unlink()
    (data / "nips2017" / "images" / f"{found.files[3].stem}.txt").write_text("no picture")
    with pytest.raises(FileNotFoundError, match=rf"not found in {data}/nips2017 \(999 images there\)"):
        nips2017.pictures()


def test_a_table_without_authors_credits_nobody(data):
    write_nips(data, credits=False)
    assert set(nips2017.pictures().credits) == {""}


@pytest.mark.usefixtures("checkout")
def test_without_the_images_of_nips_2017_the_command_that_gets_them_is_named(data):
    with pytest.raises(FileNotFoundError, match="nips2017") as caught:
        nips2017.pictures()
    clone = f"git clone --depth 1 {nips2017.ABOUT.url} nips && mkdir -p {data}/nips2017 && cp -r nips/dataset/. "
    assert clone in str(caught.value)


def test_an_installed_library_names_the_address_of_nips_2017(data, monkeypatch):
    monkeypatch.setattr(uaplib.files, "__file__", str(data / "uaplib" / "files.py"))
    with pytest.raises(FileNotFoundError, match=f"Get them from {nips2017.ABOUT.url}: put what is in its folder"):
        nips2017.pictures()


def names(found):
    return [file.name for file in found.files]


def test_nips_2017_evaluates_and_900_samples_craft(samples, data):
    write_samples(data)
    with pytest.warns(
        UserWarning, match="evaluated on the 1,000 ImageNet samples, evaluation part: NIPS 2017's"
    ) as warned:
        without = {part: pictures.for_role(part) for part in PARTS}
    assert len(warned) == 1
    assert {part: names(found) for part, found in without.items()} == {p: names(f) for p, f in samples.items()}
    write_nips(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {part: pictures.for_role(part) for part in PARTS}
    assert [len(found[part]) for part in PARTS] == [900, 100, 1000]
    assert names(found["crafting"]) == names(samples["crafting"]) + names(samples["evaluation"])
    assert list(found["crafting"].classes) == [*samples["crafting"].classes, *samples["evaluation"].classes]
    assert names(found["selection"]) == names(samples["selection"])
    assert found["evaluation"] == nips2017.pictures()
    described = [pictures.describe(part) for part in PARTS]
    assert described[0] == "900 of the 1,000 ImageNet samples"
    assert described[1:] == ["the 1,000 ImageNet samples, selection part", "the 1,000 images of NIPS 2017"]


def test_where_one_of_nips_2017s_images_is_missing_the_samples_evaluate(data):
    write_samples(data)
    write_nips(data)
    next((data / "nips2017" / "images").iterdir()).unlink()
    with pytest.warns(UserWarning, match=r"evaluated on the 1,000 .* \(999 images there\)"):
        assert len(pictures.for_role("evaluation")) == 600
    assert len(pictures.for_role("crafting")) == 300


def test_nips_2017_evaluates_where_the_samples_are_missing(data):
    pytest.importorskip("foolbox")
    write_nips(data)
    assert pictures.for_role("evaluation") == nips2017.pictures()
    with pytest.warns(UserWarning, match="for crafting there are only 6 of foolbox's pictures"):
        assert len(pictures.for_role("crafting")) == 6


@pytest.mark.usefixtures("checkout")
def test_without_any_picture_the_samples_are_asked_for(data, monkeypatch):
    monkeypatch.setattr(pictures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="the package foolbox, which carries 20 ImageNet pictures"):
        pictures.foolbox_pictures()
    with pytest.raises(FileNotFoundError, match="git clone"):
        pictures.for_role("crafting")


@pytest.fixture
def imagenette(data):
    for number, wnid in enumerate(WNIDS):
        folder = data / "imagenette2-320" / "val" / wnid
        folder.mkdir(parents=True)
        for k in range(1 + number % 2):
            (folder / f"{wnid}_{k}.JPEG").write_bytes(picture(20 * number))
    return pictures.imagenette()


def test_imagenettes_classes_are_imagenets(imagenette):
    expected = dict(zip(WNIDS, (0, 217, 482, 491, 497, 566, 569, 571, 574, 701), strict=True))
    assert len(imagenette) == 15
    assert [expected[file.parent.name] for file in imagenette.files] == imagenette.classes
    images, labels = imagenette.load(TENSOR)
    assert images.shape == (15, 3, 8, 8)
    assert labels.unique().tolist() == sorted(expected.values())


def play_imagenette(monkeypatch, play):
    """In place of torchvision's download, `play` gets the folder to download into."""
    monkeypatch.setattr(datasets.Imagenette, "_download", lambda self: play(Path(self.root)))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "no network"),
        (RuntimeError("File not found or corrupted."), "File not found or corrupted"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (KeyboardInterrupt(), None),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_failed_download_of_imagenette_leaves_nothing(data, monkeypatch, error, why, is_there):
    def half(root):
        (root / "imagenette2-320" / "val").mkdir(parents=True)
        (root / "imagenette2-320.tgz").write_bytes(b"half")
        raise error

    play_imagenette(monkeypatch, half)
    folder = data / "mine"
    monkeypatch.setenv("UAPLIB_DATA", str(folder))
    if is_there:
        folder.mkdir()
    with pytest.raises(FileNotFoundError if why else KeyboardInterrupt) as caught:
        pictures.imagenette(download=True)
    assert list(data.rglob("*")) == [folder] * is_there
    if why:
        place = folder / "imagenette2-320"
        assert str(caught.value) == (
            f"Imagenette was not found in {place}, and could not be downloaded: {why}.\n"
            f"Try again, or unpack imagenette2-320.tgz there, from {pictures.IMAGENETTE_URL}."
        )


def test_a_download_of_imagenette_is_kept_and_not_repeated(data, monkeypatch):
    def whole(root):
        for wnid in WNIDS:
            (root / "imagenette2-320" / "val" / wnid).mkdir(parents=True)
            (root / "imagenette2-320" / "val" / wnid / "a.JPEG").write_bytes(picture())
        (root / "imagenette2-320.tgz").write_bytes(b"whole")

    play_imagenette(monkeypatch, whole)
    assert len(pictures.imagenette(download=True)) == 10
    assert [f.name for f in data.iterdir()] == ["imagenette2-320"]
    play_imagenette(monkeypatch, lambda root: pytest.fail("downloaded again"))
    assert len(pictures.imagenette(download=True)) == 10


def test_missing_imagenette_is_named(data):
    with pytest.raises(FileNotFoundError, match="download=True fetches it") as caught:
        pictures.imagenette()
    assert str(data) in str(caught.value)


def test_an_imagenet_folder(tmp_path):
    content = picture()
    for index in range(1000):
        (tmp_path / f"n{index:08d}").mkdir()
        (tmp_path / f"n{index:08d}" / "a.JPEG").write_bytes(content)
    os.link(tmp_path / "n00000005" / "a.JPEG", tmp_path / "n00000005" / "b.JPEG")
    found = pictures.image_folder(tmp_path)
    assert len(found) == 1001
    assert found.classes.count(5) == 2
    assert all(int(file.parent.name[1:]) == label for file, label in zip(found.files, found.classes, strict=True))
    assert isinstance(found.files[0], Path)


def test_a_folder_without_a_thousand_classes_is_refused(imagenette, data):
    with pytest.raises(ValueError, match="must hold one subfolder for each of the 1,000 classes, not 10"):
        pictures.image_folder(data / "imagenette2-320" / "val")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        pictures.image_folder(tmp_path)
