"""Rendered scenes with exact depth and a class for every pixel: a ground, walls, boxes, balls and pillars under a sky.

A pinhole camera looks at a world that a seed decides, so the data set is its generator: nothing to download, as many
scenes as one likes, no error in the ground truth. Only additions, multiplications, divisions and square roots make a
scene, whose results IEEE 754 fixes to the last bit, so it is the same on every machine. (Sines come from half-angle
tangents, textures from integer hashes.)

Lengths are in metres. x points right, y down, z along the view before the camera is tilted; the camera is the origin.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uaplib.data import DATA_SETS, SPLIT_OF
from uaplib.names import check_name

CLASSES = ("sky", "ground", "wall", "box", "ball", "pillar")
SKY, GROUND, WALL, BOX, BALL, PILLAR = range(len(CLASSES))
OBJECTS = ("box", "ball", "pillar")  # the rest is background
COLOURS = ((120, 170, 220), (140, 120, 90), (150, 150, 160), (0, 114, 178), (213, 94, 0), (0, 158, 115), (0, 0, 0))
VOID = len(CLASSES)  # no pixel has it: every ray knows what it hits
SPLITS = {"train": 4000, "val": 300, "test": 300}
SIZE = DATA_SETS["scenes"].size
MOST = 1_000_000  # scenes between the first seeds of two splits
FOCAL_LENGTH = 110.0  # in pixels
MAX_DEPTH = 40.0  # what is farther has no depth
EYE_HEIGHT = (1.5, 1.7)  # of the camera: a person's, so that one picture tells how large things are

_FIRST_SEED = {"train": 0, "val": MOST, "test": 2 * MOST}
_FAR = 1e9
Random = Callable[[float, float], float]


class Scenes(NamedTuple):
    """Images (N, 3, H, W), float32 in [0, 1]; classes (N, H, W), int64; depth (N, H, W), float32 in metres, 0: none."""

    images: Tensor
    labels: Tensor
    depth: Tensor


def available() -> bool:
    """Return True: the scenes are computed, not fetched."""
    return True


def load(split: str, first: int | None = None, progress: bool = False) -> Scenes:
    """Return the "train", "val" or "test" scenes, or the `first` of them, which need not stop at the split's size.

    Raises ValueError for another split, or more scenes than lie between two splits' seeds.
    """
    check_name("split", split, SPLITS)
    count = SPLITS[split] if first is None else first
    if not 0 < count <= MOST:
        raise ValueError(f"first must be 1 ... {MOST:,}, not {first}")
    seeds = range(_FIRST_SEED[split], _FIRST_SEED[split] + count)
    pixels, labels, depth = zip(
        *(render(seed) for seed in tqdm(seeds, "rendering", disable=not progress, leave=False)), strict=True
    )
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255
    return Scenes(images, torch.from_numpy(np.stack(labels)).long(), torch.from_numpy(np.stack(depth)))


def load_role(role: str, count: int | None = None) -> Scenes:
    """Return the scenes of the split that plays a role, or so many of its seeds; see `uaplib.data.load`."""
    return load(SPLIT_OF[role], count)


def most(role: str) -> int:
    """Return how many scenes can be rendered for a role before the next split begins."""
    return MOST


def describe(role: str) -> str:
    """Return in words where the scenes of a role come from."""
    return f"scenes, {SPLIT_OF[role]} split"


def object_share(labels: Tensor) -> Tensor:
    """Return the share of each scene's pixels (N, H, W) that show objects, not background, of shape (N,)."""
    return torch.isin(labels, torch.tensor([CLASSES.index(name) for name in OBJECTS])).float().mean((1, 2))


class _Hit(NamedTuple):
    """What rays hit: how far along the ray, the surface's normal and two coordinates on it in metres."""

    distance: np.ndarray
    normal: tuple
    u: np.ndarray
    v: np.ndarray


class _Rays(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class _Thing(NamedTuple):
    """One surface: its class, how rays hit it, and its two colours, texture, cell size and seed."""

    kind: int
    hit: Callable[[_Rays], _Hit]
    colours: np.ndarray
    pattern: int
    cell: float
    seed: int


def render(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scene of a seed: pixels (H, W, 3) uint8, classes (H, W) uint8 and depth (H, W) float32.

    The depth is the distance along the optical axis, 0 for the sky and beyond `MAX_DEPTH`.
    """
    generator = np.random.Generator(np.random.PCG64(seed))

    def random(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * generator.random()

    height = random(*EYE_HEIGHT)
    rays, axial = _rays(size, half_tilt=random(0.0, 0.12))
    things = _world(height, random)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        hits = [thing.hit(rays) for thing in things]
        distance = np.stack([_in_front(hit.distance) for hit in hits])
        nearest = distance.argmin(0)
        pixels = _sky(rays, random)
        light = _unit(random(-1, 1), random(-1.6, -0.6), random(-1, 0))
        for number, (thing, hit) in enumerate(zip(things, hits, strict=True)):
            seen = (nearest == number) & (distance[number] < _FAR)
            pixels[seen] = _shade(thing, _Hit(*_select(hit, seen)), light, (distance[number] * axial)[seen])
    range_ = distance.min(0)
    classes = np.array([thing.kind for thing in things], np.uint8)[nearest]
    classes[range_ >= _FAR] = SKY
    depth = np.where(range_ * axial <= MAX_DEPTH, range_ * axial, 0.0).astype(np.float32)
    return np.floor(pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8), classes, depth


@lru_cache
def _pixel_grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    focal = FOCAL_LENGTH * size[1] / SIZE[1]
    return (columns + 0.5 - size[1] / 2) / focal, (rows + 0.5 - size[0] / 2) / focal


def _rays(size: tuple[int, int], half_tilt: float) -> tuple[_Rays, np.ndarray]:
    """Rays of unit length through all pixels of a camera that is tilted downwards, and their share along its axis."""
    x, y = _pixel_grid(size)
    cosine, sine = _rotation(half_tilt)
    length = np.sqrt(x * x + y * y + 1)
    return _Rays(x / length, (y * cosine + sine) / length, (cosine - y * sine) / length), 1 / length


def _rotation(half_tangent: float) -> tuple[float, float]:
    """Cosine and sine of an angle from the tangent of its half."""
    t = half_tangent
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    length = np.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _world(height: float, random: Random) -> list[_Thing]:
    """The ground, up to three walls and three to eight things that stand on the ground."""
    things = [_thing(GROUND, _plane((0, 1, 0), height), random)]
    if random() < 0.7:
        cosine, sine = _rotation(random(-0.3, 0.3))
        top = height - random(2.5, 7)
        things.append(_thing(WALL, _plane((sine, 0, -cosine), -random(9, 25), top), random))
    for side in (-1, 1):
        if random() < 0.4:
            cosine, sine = _rotation(random(-0.08, 0.08))
            top = height - random(2, 5)
            things.append(_thing(WALL, _plane((-side * cosine, 0, sine), -random(3, 7), top), random))
    for _ in range(3 + int(random(0, 6))):
        z = random(3, 16)
        x = random(-0.6, 0.6) * z
        kind = BOX + int(random(0, 3))
        things.append(_thing(kind, _standing(kind, x, z, height, random), random))
    return things


def _standing(kind: int, x: float, z: float, ground: float, random: Random) -> Callable[[_Rays], _Hit]:
    if kind == BOX:
        half = (random(0.3, 1.2), random(0.3, 1.3), random(0.3, 1.2))
        return _box((x, ground - half[1], z), half, _rotation(random(-0.4, 0.4)))
    if kind == BALL:
        radius = random(0.3, 1.1)
        return _ball((x, ground - radius, z), radius)
    return _pillar((x, z), random(0.15, 0.5), ground - random(1.5, 4), ground)


def _thing(kind: int, hit: Callable[[_Rays], _Hit], random: Random) -> _Thing:
    colours = np.array([[random(0.05, 0.95) for _ in range(3)] for _ in range(2)])
    if random() < 0.5:  # shades of one colour are as common as two colours
        colours[1] = colours[0] * random(0.4, 0.8)
    cell = random(0.15, 0.6) * (2.0 if kind in (GROUND, WALL) else 1.0)
    return _Thing(kind, hit, colours, int(random(0, 3)), cell, int(random(0, 2**31)))


def _in_front(distance: np.ndarray) -> np.ndarray:
    return np.where((distance > 0.05) & (distance < _FAR), distance, _FAR)


def _plane(normal: tuple, offset: float, top: float | None = None) -> Callable[[_Rays], _Hit]:
    """The plane of all points p with normal * p = offset; a wall ends at the height `top`."""
    a, b, c = normal

    def hit(rays: _Rays) -> _Hit:
        distance = offset / (rays.x * a + rays.y * b + rays.z * c)
        x, y, z = rays.x * distance, rays.y * distance, rays.z * distance
        if top is None:
            return _Hit(distance, (a, -b, c), x, z)
        return _Hit(np.where(y > top, distance, _FAR), normal, x * c - z * a, y)

    return hit


def _box(centre: tuple, half: tuple, rotation: tuple[float, float]) -> Callable[[_Rays], _Hit]:
    """An upright box: where a ray has entered all three pairs of planes and left none."""
    cosine, sine = rotation

    def turned(x: np.ndarray, z: np.ndarray) -> tuple:
        return x * cosine + z * sine, z * cosine - x * sine

    def hit(rays: _Rays) -> _Hit:
        (dx, dz), (ox, oz) = turned(rays.x, rays.z), turned(-centre[0], -centre[2])
        origins, directions = (ox, -centre[1], oz), [np.where(d == 0, 1e-12, d) for d in (dx, rays.y, dz)]
        ends = [((-h - o) / d, (h - o) / d) for h, o, d in zip(half, origins, directions, strict=True)]
        enter = np.stack([np.minimum(*pair) for pair in ends])
        distance, leave = enter.max(0), np.minimum.reduce([np.maximum(*pair) for pair in ends])
        face = enter.argmax(0)
        x, y, z = (o + d * distance for o, d in zip(origins, directions, strict=True))
        sign = -np.sign(np.choose(face, directions))
        nx, ny, nz = (np.where(face == axis, sign, 0.0) for axis in range(3))
        normal = (nx * cosine - nz * sine, ny, nx * sine + nz * cosine)
        return _Hit(np.where(distance < leave, distance, _FAR), normal, np.where(face == 0, z, x),
                    np.where(face == 1, z, y))  # fmt: skip

    return hit


def _ball(centre: tuple, radius: float) -> Callable[[_Rays], _Hit]:
    """A sphere, the nearer of its two intersections."""
    a, b, c = centre

    def hit(rays: _Rays) -> _Hit:
        along = rays.x * a + rays.y * b + rays.z * c
        distance = along - np.sqrt(along * along - (a * a + b * b + c * c - radius * radius))
        x, y, z = rays.x * distance - a, rays.y * distance - b, rays.z * distance - c
        return _Hit(distance, (x / radius, y / radius, z / radius), x - z, y)

    return hit


def _pillar(centre: tuple[float, float], radius: float, top: float, ground: float) -> Callable[[_Rays], _Hit]:
    """An upright cylinder; seen from below its top, so it needs no lid unless the camera is above it."""
    a, c = centre

    def hit(rays: _Rays) -> _Hit:
        flat = rays.x * rays.x + rays.z * rays.z
        along = (rays.x * a + rays.z * c) / flat
        side = along - np.sqrt(along * along - (a * a + c * c - radius * radius) / flat)
        y = rays.y * side
        side = np.where((y > top) & (y <= ground), side, _FAR)
        lid = top / rays.y
        x, z = rays.x * lid - a, rays.z * lid - c
        lid = np.where((lid > 0) & (x * x + z * z < radius * radius), lid, _FAR)
        on_side = ~(lid < side)
        distance = np.where(on_side, side, lid)
        x, y, z = rays.x * distance - a, rays.y * distance, rays.z * distance - c
        normal = tuple(np.where(on_side, n, m) for n, m in ((x / radius, 0.0), (0.0, -1.0), (z / radius, 0.0)))
        return _Hit(distance, normal, x - z, np.where(on_side, y, z))

    return hit


def _select(hit: _Hit, seen: np.ndarray) -> tuple:
    normal = tuple(np.broadcast_to(n, seen.shape)[seen] for n in hit.normal)
    return hit.distance[seen], normal, hit.u[seen], hit.v[seen]


def _shade(thing: _Thing, hit: _Hit, light: tuple, depth: np.ndarray) -> np.ndarray:
    """Colours (n, 3): the texture between two colours, times Lambert's cosine and some light from everywhere."""
    share = _texture(thing, hit.u, hit.v)
    footprint = depth / FOCAL_LENGTH  # of a pixel; a texture that is finer fades to its mean
    share = 0.5 + (share - 0.5) * np.minimum(1.0, 0.5 * thing.cell / footprint)
    cosine = hit.normal[0] * light[0] + hit.normal[1] * light[1] + hit.normal[2] * light[2]
    brightness = 0.45 + 0.55 * np.maximum(cosine, 0.0)
    colour = thing.colours[0] * (1 - share[:, None]) + thing.colours[1] * share[:, None]
    return colour * brightness[:, None]


def _texture(thing: _Thing, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The share of the second colour, in [0, 1]: noise, noise on a chequerboard, or noise on stripes."""
    a, b = u / thing.cell, v / thing.cell
    noise = 0.6 * _value_noise(a, b, thing.seed) + 0.4 * _value_noise(2 * a, 2 * b, thing.seed + 1)
    if thing.pattern == 0:
        return noise
    cells = np.floor(a) if thing.pattern == 1 else np.floor(a) + np.floor(b)
    return 0.3 * noise + 0.7 * (cells - 2 * np.floor(cells / 2))


def _sky(rays: _Rays, random: Random) -> np.ndarray:
    """A blue or grey gradient with clouds."""
    zenith = np.array([random(0.3, 0.6), random(0.5, 0.75), random(0.75, 1.0)])
    seed, cover = int(random(0, 2**31)), random(0, 1)
    up = np.maximum(-rays.y, 0.0)
    away = 1 / (up + 0.15)
    clouds = _value_noise(2 * rays.x * away, 2 * rays.z * away, seed)
    clouds = 0.6 * clouds + 0.4 * _value_noise(5 * rays.x * away, 5 * rays.z * away, seed + 1)
    white = np.clip(cover * clouds + (1 - up) * 0.4, 0, 1)[..., None]
    return zenith * (1 - white) + 0.95 * white


def _value_noise(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """Random numbers on the integer lattice, blended smoothly in between."""
    i, j = np.floor(a), np.floor(b)
    s, t = a - i, b - j
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    i, j = (np.clip(k, -(2**30), 2**30).astype(np.int64) for k in (i, j))
    near = _hash(i, j, seed) * (1 - s) + _hash(i + 1, j, seed) * s
    far = _hash(i, j + 1, seed) * (1 - s) + _hash(i + 1, j + 1, seed) * s
    return near * (1 - t) + far * t


def _hash(i: np.ndarray, j: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each lattice point, from multiplications modulo 2^64 (after splitmix64)."""
    x = i.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + j.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    x = x + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53
