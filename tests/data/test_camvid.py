"""CamVid: a small folder of made-up scenes stands in for the real one, whose check sum is tested where it is there."""

import hashlib
import io
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import or_skip
from uaplib import files
from uaplib.data import camvid

COUNTS = {"train": 2, "val": 3, "test": 1}
HEIGHT, WIDTH = 12, 20


def scene(split, number):
    """A picture and its labels, which are sky, tree or void only."""
    generator = np.random.default_rng([list(COUNTS).index(split), number])
    pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return pixels, generator.choice(np.array([0, 5, 11], np.uint8), (HEIGHT, WIDTH))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    sums = {}
    for split, count in COUNTS.items():
        for part in (split, f"{split}annot"):
            (tmp_path / "camvid" / part).mkdir(parents=True)
        digest = hashlib.sha256()
        for number in reversed(range(count)):
            pixels, labels = scene(split, number)
            Image.fromarray(pixels).save(tmp_path / "camvid" / split / f"scene{number}.png")
            Image.fromarray(labels).save(tmp_path / "camvid" / f"{split}annot" / f"scene{number}.png")
        for number in range(count):
            digest.update(b"(12, 20)" + scene(split, number)[1].tobytes())
        sums[split] = digest.hexdigest()
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setattr(camvid, "SPLITS", COUNTS)
    monkeypatch.setattr(camvid, "_LABELS_SHA256", sums)
    return tmp_path / "camvid"


def save(picture, path, **options):
    picture.save(path, **options)
    return path


def png(picture):
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("split", COUNTS)
def test_scenes_come_in_the_order_of_their_names(folder, split):
    found = camvid.load(split, size=(HEIGHT, WIDTH))
    expected = [scene(split, number) for number in range(COUNTS[split])]
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in expected])).permute(0, 3, 1, 2)
    assert torch.allclose(found.images, pixels / 255, atol=1e-6)
    assert np.array_equal(found.labels, np.stack([labels for _, labels in expected]))


def test_shapes_types_and_range(folder):
    images, labels = camvid.load("val")
    assert (images.shape, images.dtype) == ((3, 3, 240, 320), torch.float32)
    assert (labels.shape, labels.dtype) == ((3, 240, 320), torch.int64)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1


def test_the_first_scenes(folder):
    every, first = camvid.load("val", size=(12, 20)), camvid.load("val", 2, size=(12, 20))
    assert len(first.images) == len(first.labels) == 2
    assert torch.equal(first.images, every.images[:2])
    assert torch.equal(first.labels, every.labels[:2])


@pytest.mark.parametrize("size", [(7, 5), (5, 17), (45, 70)])
def test_labels_are_those_of_the_nearest_pixels(folder, size):
    found = camvid.load("val", size=size).labels
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (12, 20), strict=True))
    for number in range(3):
        assert np.array_equal(found[number], scene("val", number)[1][rows][:, columns])
    assert set(found.unique().tolist()) <= {0, 5, 11}


def test_a_picture_that_shrinks_is_smoothed(tmp_path):
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    found = camvid.read_image(save(Image.fromarray(pixels), tmp_path / "edge.png"), (6, 10))
    assert found.shape == (1, 3, 6, 10)
    assert found[0, 1, 3].tolist() == pytest.approx([0] * 4 + [1 / 8, 7 / 8] + [1] * 4, abs=1e-5)


def test_another_split_is_refused(folder):
    with pytest.raises(ValueError, match="split='vall' is unknown. Did you mean 'val'"):
        camvid.load("vall")


@pytest.mark.usefixtures("checkout")
def test_missing_data_gets_the_command_that_fetches_it(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    assert not camvid.available()
    with pytest.raises(FileNotFoundError, match="0 images and 0 label maps there") as caught:
        camvid.load("train")
    place = tmp_path / "camvid"
    copy = f"mkdir -p {place} && cp -r segnet/CamVid/. {place}"
    assert str(caught.value).splitlines()[1:] == [
        f"Get them by: git clone --depth 1 {camvid.ABOUT.url} segnet && {copy}"
    ]


@pytest.mark.usefixtures("checkout")
def test_the_command_works_for_a_folder_that_is_half_there_and_has_a_space_in_its_name(monkeypatch, tmp_path):
    """It is run, but for the clone, whose result is put in its place."""
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "my data"))
    (tmp_path / "segnet" / "CamVid" / "train").mkdir(parents=True)
    (tmp_path / "my data" / "camvid" / "train").mkdir(parents=True)
    (tmp_path / "segnet" / "CamVid" / "train" / "a.png").touch()
    with pytest.raises(FileNotFoundError) as caught:
        camvid.load("train")
    _, copy = str(caught.value).split(" segnet && ")
    for _ in range(2):
        subprocess.run(copy, shell=True, cwd=tmp_path, check=True)
    assert [f.name for f in (tmp_path / "my data").rglob("*")] == ["camvid", "train", "a.png"]


def test_an_installed_library_names_the_address_and_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setattr(files, "__file__", str(tmp_path / "uaplib" / "files.py"))
    with pytest.raises(FileNotFoundError) as caught:
        camvid.load("train")
    remedy = f"Get them from {camvid.ABOUT.url}: put what is in its folder CamVid into {tmp_path / 'camvid'}."
    assert str(caught.value).splitlines()[1:] == [remedy]


@pytest.mark.parametrize(("part", "images", "maps"), [("val", 2, 3), ("valannot", 3, 2)])
@pytest.mark.usefixtures("checkout")
def test_a_missing_file_is_counted(folder, part, images, maps):
    assert camvid.available()
    (folder / part / "scene1.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"{images} images and {maps} label maps there\\S+\n.*git clone"):
        camvid.load("val")


@pytest.mark.usefixtures("checkout")
def test_names_that_do_not_match_are_refused(folder):
    (folder / "valannot" / "scene1.png").rename(folder / "valannot" / "scene7.png")
    with pytest.raises(FileNotFoundError, match="git clone"):
        camvid.load("val")


@pytest.mark.parametrize("part", [*COUNTS, *(f"{split}annot" for split in COUNTS)])
@pytest.mark.parametrize("left", ["a file less", "nothing but the folder", "no folder"])
def test_half_of_it_is_not_the_data_set(folder, part, left):
    assert camvid.available()
    files = sorted((folder / part).iterdir())
    for file in files[:1] if left == "a file less" else files:
        file.unlink()
    if left == "no folder":
        (folder / part).rmdir()
    assert not camvid.available()


def test_empty_folders_are_not_the_data_set(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    for split in camvid.SPLITS:
        for part in (split, f"{split}annot"):
            (tmp_path / "camvid" / part).mkdir(parents=True)
    assert not camvid.available()


def test_an_altered_label_map_is_noticed_even_when_it_is_not_asked_for(folder):
    labels = scene("val", 2)[1]
    labels[3, 4] = 0 if labels[3, 4] else 5
    save(Image.fromarray(labels), folder / "valannot" / "scene2.png")
    with pytest.raises(ValueError, match="are not CamVid's: their SHA-256 differs"):
        camvid.load("val", 1)


def test_label_maps_that_were_swapped_are_noticed(folder):
    one, two = (folder / "valannot" / f"scene{number}.png" for number in (1, 2))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        camvid.load("val")


def test_compression_does_not_matter(folder):
    save(Image.fromarray(scene("test", 0)[1]), folder / "testannot" / "scene0.png", compress_level=0)
    assert len(camvid.load("test").labels) == 1


def test_a_grey_picture_gets_three_equal_channels(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    found = camvid.read_image(save(Image.fromarray(pixels), tmp_path / "grey.png"))
    assert found.shape == (1, 3, 6, 8)
    for channel in found[0]:
        assert torch.equal(channel, torch.from_numpy(pixels) / 255)


def test_a_picture_of_sixteen_bits_is_refused_not_clipped(tmp_path):
    picture = Image.fromarray(np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8))
    with pytest.raises(ValueError, match="deep.png has mode 'I;16'; a picture needs channels of 8 bits"):
        camvid.read_image(save(picture, tmp_path / "deep.png"))


def test_an_opaque_alpha_channel_is_dropped(tmp_path):
    found = camvid.read_image(save(Image.new("RGBA", (5, 4), (255, 51, 0, 255)), tmp_path / "opaque.png"))
    assert found.shape == (1, 3, 4, 5)
    assert found[0, :, 2, 2].tolist() == pytest.approx([1, 0.2, 0])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_transparent_picture_is_refused(tmp_path, mode):
    picture = Image.new("RGBA", (5, 4), (255, 255, 255, 255))
    picture.putpixel((4, 3), (255, 255, 255, 254))
    file = save(picture.convert(mode), tmp_path / "glass.png")
    with pytest.raises(ValueError, match="glass.png is partly transparent; flatten it"):
        camvid.read_image(file)


def test_a_palette_with_a_transparent_colour_is_refused(tmp_path):
    picture = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).convert("P")
    file = save(picture, tmp_path / "glass.png", transparency=7)
    with pytest.raises(ValueError, match="glass.png is partly transparent"):
        camvid.read_image(file)


@pytest.mark.parametrize("read", [camvid.read_image, camvid.read_labels])
@pytest.mark.parametrize("keep", [0, 4, 12, 20, 30, 60, 200])
def test_a_file_that_is_cut_short_is_refused(tmp_path, read, keep):
    content = png(Image.fromarray(np.random.default_rng(0).integers(0, 11, (30, 40), dtype=np.uint8)))
    (tmp_path / "short.png").write_bytes(content[:keep])
    with pytest.raises(ValueError, match="short.png is not a readable picture"):
        read(tmp_path / "short.png")


@pytest.mark.parametrize("read", [camvid.read_image, camvid.read_labels])
def test_what_is_no_picture_is_refused(tmp_path, read):
    (tmp_path / "notes.png").write_text("a street scene, in words")
    with pytest.raises(ValueError, match="notes.png is not a readable picture"):
        read(tmp_path / "notes.png")


def test_a_label_above_void_is_refused(tmp_path):
    labels = np.full((4, 5), 11, np.uint8)
    file = save(Image.fromarray(labels), tmp_path / "map.png")
    assert camvid.read_labels(file).unique().tolist() == [camvid.VOID]
    labels[1, 2] = 12
    with pytest.raises(ValueError, match="map.png has the label 12; the classes are 0 ... 10, and 11 is void"):
        camvid.read_labels(save(Image.fromarray(labels), file))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_a_label_map_has_one_channel_of_eight_bits(tmp_path, mode):
    with pytest.raises(ValueError, match=f"map.png is no label map: it has mode '{mode}'"):
        camvid.read_labels(save(Image.new(mode, (5, 4)), tmp_path / "map.png"))


def test_a_label_map_with_a_palette_is_read_by_its_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 5], [11, 10]], np.uint8), "L").convert("P")
    picture.putpalette([200, 10, 30] * 256)
    found = camvid.read_labels(save(picture, tmp_path / "map.png"))
    assert (found.dtype, found.tolist()) == (torch.int64, [[[0, 5], [11, 10]]])


def test_the_share_of_objects():
    pole, road, bicyclist = (camvid.CLASSES.index(name) for name in ("pole", "road", "bicyclist"))
    labels = torch.tensor([[[pole, road], [bicyclist, camvid.VOID]], [[road, road], [road, pole]]])
    assert camvid.object_share(labels).tolist() == [0.5, 0.25]


def test_classes_objects_and_colours_belong_together():
    assert len(camvid.CLASSES) == len(set(camvid.CLASSES)) == camvid.VOID == 11
    assert len(set(camvid.OBJECTS)) == len(camvid.OBJECTS) == 6
    assert set(camvid.OBJECTS) < set(camvid.CLASSES)
    assert len(set(camvid.COLOURS)) == len(camvid.COLOURS) == 12
    assert all(len(colour) == 3 and 0 <= min(colour) <= max(colour) <= 255 for colour in camvid.COLOURS)


def test_the_real_label_maps_are_the_known_ones():
    images, labels = or_skip(camvid.load, "val", 2)
    assert images.shape == (2, 3, 240, 320)
    assert {camvid.CLASSES.index("road"), camvid.CLASSES.index("building")} < set(labels.unique().tolist())
    sky = images.movedim(1, -1)[labels == camvid.CLASSES.index("sky")].mean()
    assert sky > images.movedim(1, -1)[labels == camvid.CLASSES.index("road")].mean()
