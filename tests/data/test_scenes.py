"""Rendered scenes: the same everywhere, with geometry that is exact."""

import hashlib

import numpy as np
import pytest
import torch

from uaplib.data import scenes

SEEDS = (0, 1, 2, 1_000_000, 2_000_000)
HEIGHT, WIDTH = scenes.SIZE


@pytest.fixture(scope="module")
def rendered():
    return [scenes.render(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def rays():
    return scenes._rays((48, 64), half_tilt=0.05)[0]


def test_the_same_scenes_on_every_machine(rendered):
    digest = hashlib.sha256()
    for parts in rendered:
        for part in parts:
            digest.update(part.tobytes())
    assert digest.hexdigest() == "478e24333e9781f58caeb08f0955a2846745614c836c413124f8b0f748b30aae"


def test_every_seed_has_its_own_scene(rendered):
    assert len({pixels.tobytes() for pixels, _, _ in rendered}) == len(SEEDS)


def test_all_classes_appear(rendered):
    assert {int(label) for _, labels, _ in rendered for label in np.unique(labels)} == set(range(6))


def test_the_sky_has_no_depth_and_what_is_near_has_one(rendered):
    for _, labels, depth in rendered:
        assert (depth[labels == scenes.SKY] == 0).all()
        assert (depth[np.isin(labels, (scenes.BOX, scenes.BALL, scenes.PILLAR))] > 1).all()
        assert depth.max() <= scenes.MAX_DEPTH


def test_what_is_farther_than_the_greatest_depth_has_none():
    labels, depth = zip(*(scenes.render(seed)[1:] for seed in range(12)), strict=True)
    labels, depth = np.stack(labels), np.stack(depth)
    assert ((labels == scenes.GROUND) & (depth == 0)).any()
    assert scenes.MAX_DEPTH * 0.8 < depth.max() <= scenes.MAX_DEPTH


def test_the_sky_is_above_the_ground(rendered):
    rows = np.arange(HEIGHT)[:, None]
    for _, labels, _ in rendered:
        if (labels == scenes.SKY).any():
            lowest_sky = np.where(labels == scenes.SKY, rows, -1).max(0)
            highest_ground = np.where(labels == scenes.GROUND, rows, HEIGHT).min(0)
            assert (lowest_sky < highest_ground).all()


def seen(rays, hit):
    """Points on the surface, with the normal and the ray there, of the rays that hit it in front of the camera."""
    with np.errstate(all="ignore"):
        found = hit(rays)
        distance = scenes._in_front(found.distance)
    there = distance < scenes._FAR
    assert 20 < there.sum() < there.size
    directions = np.stack(rays, -1)[there]
    normals = np.stack([np.broadcast_to(n, there.shape)[there] for n in found.normal], -1)
    return directions * distance[there][:, None], normals, directions


def assert_faces_the_camera(normals, directions):
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-9
    assert ((normals * directions).sum(1) < 1e-12).all()


def test_rays_have_unit_length_and_the_middle_one_is_the_axis():
    rays, axial = scenes._rays((3, 5), half_tilt=0.1)
    assert np.abs(np.linalg.norm(np.stack(rays), axis=0) - 1).max() < 1e-12
    sine, cosine = 0.2 / 1.01, 0.99 / 1.01
    assert [ray[1, 2] for ray in rays] == pytest.approx([0, sine, cosine])
    assert axial[1, 2] == pytest.approx(1)
    assert np.allclose(rays.y * sine + rays.z * cosine, axial)


def test_a_pixel_sees_as_much_as_the_focal_length_says():
    rays, _ = scenes._rays(scenes.SIZE, half_tilt=0.0)
    edge = rays.x[0, -1] / rays.z[0, -1]
    assert edge == pytest.approx((64 - 0.5) / 110)
    assert rays.y[-1, 0] / rays.z[-1, 0] == pytest.approx((48 - 0.5) / 110)


def test_the_ground_is_hit_where_it_is(rays):
    points, normals, directions = seen(rays, scenes._plane((0, 1, 0), 1.5))
    assert np.abs(points[:, 1] - 1.5).max() < 1e-9
    assert (normals == [0, -1, 0]).all()
    assert_faces_the_camera(normals, directions)


@pytest.mark.parametrize(("normal", "offset"), [((0.28, 0, -0.96), -12), ((0.96, 0, 0.28), -4), ((-0.96, 0, 0.28), -5)])
def test_a_wall_is_hit_below_its_top(rays, normal, offset):
    points, normals, directions = seen(rays, scenes._plane(normal, offset, top=-1.0))
    assert np.abs(points @ normal - offset).max() < 1e-9
    assert points[:, 1].min() > -1
    assert_faces_the_camera(normals, directions)


@pytest.mark.parametrize("centre", [(0.3, 0.4, 5), (-1.5, 1.2, 4), (0, -0.5, 3)])
def test_a_ball_is_hit_on_its_near_side(rays, centre):
    points, normals, directions = seen(rays, scenes._ball(centre, 0.9))
    assert np.abs(np.linalg.norm(points - centre, axis=1) - 0.9).max() < 1e-9
    assert np.abs(points - centre - 0.9 * normals).max() < 1e-9
    assert_faces_the_camera(normals, directions)


@pytest.mark.parametrize("centre", [(0.3, 0.4, 5), (-1.5, 1.2, 4), (1, 1.5, 3)])
@pytest.mark.parametrize("rotation", [(1.0, 0.0), (0.8, 0.6), (0.96, -0.28)])
def test_a_box_is_hit_on_the_faces_that_the_camera_sees(rays, centre, rotation):
    half, (cosine, sine) = np.array([0.7, 0.5, 1.1]), rotation
    points, normals, directions = seen(rays, scenes._box(centre, tuple(half), rotation))
    into_the_box = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    inside, faces = (points - centre) @ into_the_box.T, normals @ into_the_box.T
    assert np.abs((np.abs(inside) - half).max(1)).max() < 1e-9
    assert (np.sort(np.abs(faces), axis=1) > [-1, -1, 1 - 1e-9]).all()
    assert np.abs((faces * inside).sum(1) - np.abs(faces) @ half).max() < 1e-9
    assert_faces_the_camera(normals, directions)


@pytest.mark.parametrize("top", [-2.0, 0.4])  # above the camera, and below: then its lid is seen
def test_a_pillar_is_hit_on_its_side_or_its_lid(rays, top):
    centre, radius, ground = np.array([0.4, 3.5]), 0.5, 1.6
    points, normals, directions = seen(rays, scenes._pillar(tuple(centre), radius, top, ground))
    across = points[:, ::2] - centre
    lid = normals[:, 1] == -1
    assert lid.any() == (top > 0)
    assert np.abs(points[lid, 1] - top).max(initial=0) < 1e-9
    assert np.linalg.norm(across[lid], axis=1).max(initial=0) < radius + 1e-9
    assert np.abs(np.linalg.norm(across[~lid], axis=1) - radius).max() < 1e-9
    assert np.abs(normals[~lid][:, ::2] * radius - across[~lid]).max() < 1e-9
    assert top - 1e-9 <= points[:, 1].min()
    assert points[:, 1].max() <= ground + 1e-9
    assert_faces_the_camera(normals, directions)


def test_what_is_behind_the_camera_is_not_seen(rays):
    for hit in (scenes._ball((0, 0, -5), 1.0), scenes._box((0, 0, -5), (1, 1, 1), (1.0, 0.0)),
                scenes._pillar((0, -5), 0.5, -3, 1.5), scenes._plane((0, 0, 1), -5, top=-9)):  # fmt: skip
        with np.errstate(all="ignore"):
            assert (scenes._in_front(hit(rays).distance) == scenes._FAR).all()


@pytest.mark.parametrize("seed", [1, 4])
def test_the_nearest_thing_is_seen(seed):
    generator = np.random.Generator(np.random.PCG64(seed))

    def random(low=0.0, high=1.0):
        return low + (high - low) * generator.random()

    height, tilt = random(*scenes.EYE_HEIGHT), 2 * np.arctan(random(0.0, 0.12))
    rays, _ = scenes._rays(scenes.SIZE, np.tan(tilt / 2))
    nearest, kinds = np.full(scenes.SIZE, np.inf), np.full(scenes.SIZE, scenes.SKY)
    for thing in scenes._world(height, random):
        with np.errstate(all="ignore"):
            distance = thing.hit(rays).distance
            along_the_axis = distance * (rays.y * np.sin(tilt) + rays.z * np.cos(tilt))
            nearer = (distance > 0.05) & (distance < scenes._FAR) & (along_the_axis < nearest)
        nearest[nearer], kinds[nearer] = along_the_axis[nearer], thing.kind
    _, labels, depth = scenes.render(seed)
    assert len(np.unique(kinds)) >= 4
    assert np.array_equal(labels, kinds)
    assert depth == pytest.approx(np.where(nearest <= scenes.MAX_DEPTH, nearest, 0), rel=1e-6)


def test_a_split_is_its_seeds_in_order():
    images, labels, depth = scenes.load("val", 2)
    for number, seed in enumerate((1_000_000, 1_000_001)):
        pixels, classes, metres = scenes.render(seed)
        assert np.array_equal((images[number] * 255).round().byte().permute(1, 2, 0), pixels)
        assert np.array_equal(labels[number], classes)
        assert np.array_equal(depth[number], metres)


def test_shapes_types_and_ranges():
    images, labels, depth = scenes.load("test", 3)
    assert (images.shape, images.dtype, images.is_contiguous()) == ((3, 3, 96, 128), torch.float32, True)
    assert (labels.shape, labels.dtype) == ((3, 96, 128), torch.int64)
    assert (depth.shape, depth.dtype) == ((3, 96, 128), torch.float32)
    assert 0 <= images.min() < 0.3 < 0.7 < images.max() <= 1
    assert 0 <= labels.min() <= labels.max() < scenes.VOID
    assert 0 <= depth.min() <= depth.max() <= 40
    assert scenes.available()


def seeds_of(monkeypatch, split, first=None):
    seeds, nothing = [], np.zeros((1, 1), np.uint8)
    monkeypatch.setattr(scenes, "render", lambda seed: seeds.append(seed) or (np.zeros((1, 1, 3)), nothing, nothing))
    scenes.load(split, first)
    return seeds


def test_no_scene_is_in_two_splits(monkeypatch):
    seeds = {split: seeds_of(monkeypatch, split) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in seeds.items()} == {"train": 4000, "val": 300, "test": 300}
    assert len({seed for found in seeds.values() for seed in found}) == 4600


def test_there_are_more_scenes_than_a_split_has(monkeypatch):
    assert seeds_of(monkeypatch, "test", 305) == list(range(2_000_000, 2_000_305))


def test_as_many_scenes_as_load_gives_never_reach_the_next_split():
    assert np.diff(sorted(scenes._FIRST_SEED.values())).min() >= 1_000_000


@pytest.mark.parametrize("first", [0, -1, 1_000_001])
def test_an_impossible_number_of_scenes_is_refused(first):
    with pytest.raises(ValueError, match=f"first must be 1 ... 1,000,000, not {first}"):
        scenes.load("train", first)


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split='tests' is unknown. Did you mean 'test'"):
        scenes.load("tests")


def test_the_share_of_objects():
    labels = torch.tensor([[[scenes.BOX, scenes.WALL], [scenes.PILLAR, scenes.BALL]], [[0, 1], [2, scenes.BALL]]])
    assert scenes.object_share(labels).tolist() == [0.75, 0.25]


def test_classes_objects_and_colours_belong_together():
    assert [scenes.CLASSES[k] for k in (scenes.SKY, scenes.GROUND, scenes.WALL)] == ["sky", "ground", "wall"]
    assert [scenes.CLASSES[k] for k in (scenes.BOX, scenes.BALL, scenes.PILLAR)] == list(scenes.OBJECTS)
    assert len(scenes.CLASSES) == scenes.VOID == 6
    assert len(set(scenes.COLOURS)) == len(scenes.COLOURS) == 7
