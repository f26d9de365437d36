"""Transformations: what Pillow and SciPy make of the same images, gradients, draws, and bad input."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import ndimage
from torch import nn

from uaplib import metrics, provenance
from uaplib.attacks import SGDUAPSettings, sgd_uap
from uaplib.balls import NormBall
from uaplib.checks import check_classifier
from uaplib.defences import JPEG, BitDepth, ExpectationOverTransformation, MedianFilter, RandomResizePad

EVERY = {
    "jpeg": lambda: JPEG(50),
    "bits": lambda: BitDepth(3),
    "median": lambda: MedianFilter(3),
    "random": lambda: RandomResizePad(3),
}
every = pytest.mark.parametrize("build", EVERY.values(), ids=EVERY)
straight = pytest.mark.parametrize("build", [EVERY["jpeg"], EVERY["bits"]], ids=["jpeg", "bits"])


def pictures(channels=3, dtype=torch.float32, count=3):
    """Smooth images of 12 x 16 under some noise."""
    generator = torch.Generator().manual_seed(channels)
    coarse = torch.rand(count, channels, 3, 4, generator=generator, dtype=torch.float64)
    fine = torch.rand(count, channels, 12, 16, generator=generator, dtype=torch.float64)
    return (0.8 * nn.functional.interpolate(coarse, (12, 16), mode="bilinear") + 0.2 * fine).to(dtype)


def by_pillow(image, quality):
    """An image (C, H, W) as Pillow writes and reads it, in 8 bits."""
    levels = np.rint(255 * image.double().numpy()).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(levels[..., 0], "L") if len(image) == 1 else Image.fromarray(levels, "RGB")
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=quality)
    found = np.array(Image.open(io.BytesIO(file.getvalue())))
    return torch.from_numpy(found[None] if len(image) == 1 else found.transpose(2, 0, 1).copy())


@pytest.mark.filterwarnings("ignore:.*mode:DeprecationWarning")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 10, 75, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jpeg_is_pillows_bit_for_bit(channels, quality, dtype):
    images = pictures(channels, dtype)
    expected = torch.stack([by_pillow(image, quality) for image in images]).to(dtype) / 255
    assert torch.equal(JPEG(quality)(images), expected)
    assert torch.equal(JPEG(quality)(images.requires_grad_()).detach(), expected)


def test_jpeg_changes_images_more_the_lower_its_quality():
    images = pictures()
    errors = [(JPEG(quality)(images) - images).abs().mean() for quality in (95, 50, 5)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_bit_depth_by_hand():
    images = torch.tensor([0.0, 0.16, 0.17, 0.49, 0.51, 0.84, 1.0, 0.6]).double().view(1, 1, 2, 4)
    expected = torch.tensor([0.0, 0.0, 1 / 3, 1 / 3, 2 / 3, 1.0, 1.0, 2 / 3]).double().view(1, 1, 2, 4)
    torch.testing.assert_close(BitDepth(2)(images), expected, rtol=0, atol=1e-7)
    assert torch.equal(BitDepth(1)(images), (images > 0.5).double())


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_has_its_values_and_keeps_them(bits):
    found = BitDepth(bits)(pictures())
    assert 1 < len(found.unique()) <= 2**bits
    torch.testing.assert_close(BitDepth(bits)(found), found, rtol=0, atol=1e-7)


def test_eight_bits_leave_images_of_eight_bits_alone():
    images = torch.arange(256).view(1, 1, 16, 16) / 255
    assert torch.equal(BitDepth(8)(images), images)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_median_is_scipys_and_pillows(size):
    images = (255 * pictures()).round()
    expected = ndimage.median_filter(images.numpy(), (1, 1, size, size), mode="nearest")
    found = MedianFilter(size)(images / 255)
    torch.testing.assert_close(255 * found, torch.from_numpy(expected), rtol=0, atol=1e-4)
    picture = Image.fromarray(images[0, 0].numpy().astype(np.uint8)).filter(ImageFilter.MedianFilter(size))
    torch.testing.assert_close(255 * found[0, 0], torch.from_numpy(np.array(picture)).float(), rtol=0, atol=1e-4)


@straight
def test_backwards_it_is_the_identity_also_where_images_were_clipped(build):
    images = pictures(dtype=torch.float64)
    images[0, 0, :2] = -0.1
    images[1, 1, 3:5] = 1.2
    images.requires_grad_()
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (found,) = torch.autograd.grad((build()(images) * weights).sum(), images)
    assert torch.equal(found, weights)


@straight
def test_what_leaves_the_range_is_clipped_first(build):
    images = pictures()
    beyond = images.clone()
    beyond[:, :, :3], images[:, :, :3] = -0.04, 0
    beyond[:, :, 3:6], images[:, :, 3:6] = 1.04, 1
    assert torch.equal(build()(beyond), build()(images))


@pytest.mark.parametrize("build", [EVERY["median"], EVERY["random"]], ids=["median", "random"])
def test_the_true_gradient(build):
    """Of a function that is linear near an image: differences are the gradient."""
    images = pictures(1, torch.float64, count=1).requires_grad_()
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(x):
        return (build()(x) * weights).sum()

    (found,) = torch.autograd.grad(weighted(images), images)
    steps = 1e-7 * torch.eye(images.numel(), dtype=torch.float64).view(-1, 1, *images.shape[1:])
    with torch.no_grad():
        expected = [(weighted(images + step) - weighted(images - step)) / 2e-7 for step in steps]
    torch.testing.assert_close(found.flatten(), torch.stack(expected), rtol=0, atol=1e-6)


def test_the_random_one_is_the_nearest_pixel_at_some_place_on_black():
    """Every image is found again: of one size and at one place, and all sizes are drawn."""
    images = pictures(count=60) + 0.1
    seen = set()
    for image, found in zip(images, RandomResizePad(shrink=2, seed=4)(images), strict=True):
        matches = []
        for height in (10, 11, 12):
            width = round(height * 16 / 12)
            small = torch.stack([
                torch.stack([image[:, row * 12 // height, column * 16 // width] for column in range(width)], 1)
                for row in range(height)
            ], 1)  # fmt: skip
            for top in range(13 - height):
                for left in range(17 - width):
                    placed = torch.zeros_like(image)
                    placed[:, top : top + height, left : left + width] = small
                    if torch.equal(placed, found):
                        matches.append((height, top, left))
        assert len(matches) == 1
        seen |= set(matches)
    assert {height for height, _, _ in seen} == {10, 11, 12}
    assert {top for height, top, _ in seen if height == 10} == {0, 1, 2}


def test_a_seed_decides_all_draws_and_no_other_generator_is_touched():
    images = pictures()
    state = torch.get_rng_state()
    one, same, other = RandomResizePad(seed=1), RandomResizePad(seed=1), RandomResizePad(seed=2)
    first, second = one(images), one(images)
    torch.manual_seed(5)
    assert torch.equal(same(images), first)
    assert torch.equal(same(images), second)
    assert not torch.equal(first, second)
    assert not torch.equal(other(images), first)
    torch.set_rng_state(state)
    one.restart()
    copied = copy.deepcopy(one)
    assert torch.equal(one(images), first)
    assert torch.equal(copied(images), first)
    assert torch.equal(torch.get_rng_state(), state)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shape_the_type_and_the_images_stay(build, dtype):
    images = pictures(dtype=dtype)
    before = images.clone()
    found = build()(images)
    assert found.shape == images.shape
    assert found.dtype == dtype
    assert not torch.equal(found, images)
    assert torch.equal(images, before)


@every
def test_a_defended_network_is_a_network(build, model, blobs):
    images = blobs[0][:20]
    defended = nn.Sequential(build(), model).eval()
    assert check_classifier(defended, images) == 5
    assert metrics.predict(defended, images).shape == (20,)
    settings = SGDUAPSettings(max_gradients=100)
    assert sgd_uap(defended, images, NormBall(math.inf, 0.05), settings=settings).delta.any()


def test_networks_behind_other_transformations_have_other_digests(model):
    builds = [JPEG(50), JPEG(60), BitDepth(3), MedianFilter(3), RandomResizePad(3), RandomResizePad(3, seed=1)]
    networks = [nn.Sequential(each, model) for each in builds]
    networks += [ExpectationOverTransformation(model, builds[-1], samples) for samples in (2, 3)]
    digests = [provenance.weights_sha256(each) for each in networks]
    assert len(set(digests)) == len(digests)
    networks[0].load_state_dict(nn.Sequential(JPEG(50), copy.deepcopy(model)).state_dict())
    with pytest.raises(ValueError, match="'quality': 60.*that of.*'quality': 50"):
        networks[1].load_state_dict(networks[0].state_dict())
    assert repr(builds[0]) == "JPEG(quality=50)"


def test_the_expectation_is_the_mean_of_logits_and_of_gradients(model, blobs):
    images = blobs[0][:4].clone().requires_grad_()
    one, many = RandomResizePad(seed=3), ExpectationOverTransformation(model, RandomResizePad(seed=3), samples=5)
    logits = [model(one(images)) for _ in range(5)]
    gradients = [torch.autograd.grad(each[:, 2].sum(), images)[0] for each in logits]
    found = many(images)
    torch.testing.assert_close(found, sum(logits) / 5, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(found[:, 2].sum(), images)
    torch.testing.assert_close(gradient, sum(gradients) / 5, rtol=0, atol=1e-12)
    assert len({each.sum().item() for each in logits}) == 5


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_bad_qualities(quality):
    with pytest.raises(ValueError, match=rf"quality must lie in 1 ... 100, not {quality}"):
        JPEG(quality)


@pytest.mark.parametrize("bits", [0, 9])
def test_bad_bits(bits):
    with pytest.raises(ValueError, match=rf"bits must lie in 1 ... 8, not {bits}"):
        BitDepth(bits)


@pytest.mark.parametrize("size", [0, 2, 4, -1])
def test_bad_sizes_of_a_median(size):
    with pytest.raises(ValueError, match="size must be odd"):
        MedianFilter(size)


@pytest.mark.parametrize("build", [JPEG, BitDepth, MedianFilter, RandomResizePad])
def test_settings_are_whole_numbers(build):
    with pytest.raises(TypeError, match="must be a whole number, not 3.5"):
        build(3.5)


def test_bad_shrinks_seeds_and_samples(model):
    with pytest.raises(ValueError, match="shrink must lie in 1 ..."):
        RandomResizePad(0)
    with pytest.raises(ValueError, match="shrink=12 leaves nothing of images of 12 rows"):
        RandomResizePad(12)(pictures())
    with pytest.raises(ValueError, match="seed must lie in 0 ..."):
        RandomResizePad(3, seed=-1)
    with pytest.raises(ValueError, match="samples must lie in 1 ..."):
        ExpectationOverTransformation(model, RandomResizePad(3), samples=0)


@every
def test_bad_images(build):
    with pytest.raises(ValueError, match=r"not far from it, not in \[0, 255\]"):
        build()(torch.arange(256).view(1, 1, 16, 16).float())
    with pytest.raises(ValueError, match=r"not in \[-2, -2\]"):
        build()(torch.full((1, 1, 8, 8), -2.0))
    with pytest.raises(ValueError, match="four dimensions"):
        build()(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        build()(torch.full((1, 1, 8, 8), math.nan))
    with pytest.raises(TypeError, match="floating point"):
        build()(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize("channels", [2, 4])
def test_jpeg_knows_grey_and_colour(channels):
    with pytest.raises(ValueError, match=f"1 channel .grey. or 3 .RGB., not of {channels}"):
        JPEG()(torch.zeros(1, channels, 8, 8))
