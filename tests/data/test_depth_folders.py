"""Folders of pictures with measured depth, made up here."""

import numpy as np
import pytest
import torch
from PIL import Image

from uaplib.data import depth_folders

UNITS = {"nyu": 1000, "kitti": 256}
every = pytest.mark.parametrize("kind", UNITS)


def write(folder, name, units, suffix=".png"):
    for part in ("rgb", "depth"):
        (folder / part).mkdir(exist_ok=True)
    units = np.array(units, np.uint16)
    Image.new("RGB", units.shape[::-1], (255, 51, 0)).save(folder / "rgb" / f"{name}{suffix}")
    Image.fromarray(units).save(folder / "depth" / f"{name}.png")


@every
def test_depth_is_in_metres_and_zero_stays_zero(tmp_path, kind):
    unit = UNITS[kind]
    write(tmp_path, "a", [[0, unit, 2 * unit], [unit // 2, 60000, 1]])
    images, depth = depth_folders.load(tmp_path, kind, (2, 3))
    assert (images.shape, images.dtype) == ((1, 3, 2, 3), torch.float32)
    assert (depth.shape, depth.dtype) == ((1, 2, 3), torch.float32)
    assert depth.flatten().tolist() == pytest.approx([0, 1, 2, 0.5, 60000 / unit, 1 / unit])
    assert images[0, :, 1, 1].tolist() == pytest.approx([1, 0.2, 0])


@every
@pytest.mark.parametrize("size", [(5, 3), (2, 9), (31, 45)])
def test_depth_is_that_of_the_nearest_point(tmp_path, kind, size):
    units = np.random.default_rng(0).choice([0, 1000, 9000, 50000], (8, 12)).astype(np.uint16)
    write(tmp_path, "a", units)
    images, depth = depth_folders.load(tmp_path, kind, size)
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (8, 12), strict=True))
    assert images.shape == (1, 3, *size)
    assert depth[0].numpy() == pytest.approx(units[rows][:, columns] / UNITS[kind], rel=1e-6)


@every
def test_pairs_come_in_the_order_of_their_names(tmp_path, kind):
    for metres, (name, suffix) in enumerate([("d", ".png"), ("b", ".jpg"), ("a", ".png"), ("c", ".jpg")], start=1):
        write(tmp_path, name, np.full((4, 4), metres * UNITS[kind]), suffix)
    assert depth_folders.load(tmp_path, kind, (4, 4)).depth[:, 0, 0].tolist() == [3, 2, 4, 1]
    images, depth = depth_folders.load(str(tmp_path), kind, (4, 4), first=2)
    assert len(images) == 2
    assert depth[:, 0, 0].tolist() == [3, 2]


@pytest.mark.parametrize(("part", "pictures", "maps"), [("rgb", 1, 2), ("depth", 2, 1)])
def test_a_file_without_partner_is_named(tmp_path, part, pictures, maps):
    for name in ("paired", "lonely"):
        write(tmp_path, name, np.ones((4, 4)))
    (tmp_path / part / "lonely.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"found {pictures} pictures and {maps} depth maps, .*'lonely'"):
        depth_folders.load(tmp_path, "nyu", (4, 4))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold pairs rgb/NAME.jpg .*found 0 pictures and 0 depth maps$"):
        depth_folders.load(tmp_path, "kitti", (4, 4))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_depth_needs_sixteen_bits(tmp_path, mode):
    write(tmp_path, "a", np.ones((4, 4)))
    Image.new(mode, (4, 4)).save(tmp_path / "depth" / "a.png")
    with pytest.raises(ValueError, match=f"a.png has mode '{mode}'; depth needs one channel of 16 bits"):
        depth_folders.load(tmp_path, "nyu", (4, 4))


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="kind='kiti' is unknown. Did you mean 'kitti'"):
        depth_folders.load(tmp_path, "kiti", (4, 4))


@pytest.mark.parametrize("part", ["rgb", "depth"])
@pytest.mark.parametrize("keep", [0, 4, 12, 20, 30, 45])
def test_a_file_that_is_cut_short_is_refused(tmp_path, part, keep):
    write(tmp_path, "a", np.random.default_rng(0).integers(0, 60000, (8, 8)))
    file = tmp_path / part / "a.png"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="a.png is not a readable picture"):
        depth_folders.load(tmp_path, "nyu", (4, 4))
