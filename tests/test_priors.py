"""Pictures that lie under a perturbation while it is crafted."""

import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from uaplib import priors
from uaplib.models import Normalized

MEAN, STD = [0.3, 0.5, 0.7], [0.05, 0.1, 0.02]


@pytest.fixture
def model():
    return Normalized(nn.Identity(), MEAN, STD, 32)


@pytest.fixture
def wide():
    """A model whose images are not square."""
    return Normalized(nn.Identity(), [0.5], [0.1], (12, 40))


def correlation(pictures):
    """Of pixels that lie side by side."""
    left, right = pictures[..., :-1].flatten(), pictures[..., 1:].flatten()
    return torch.corrcoef(torch.stack([left, right]))[0, 1].item()


def test_white_noise_has_the_mean_and_the_deviation_of_the_normalisation(model):
    torch.manual_seed(0)
    found = priors.range_pictures(model, 100)
    assert found.mean((0, 2, 3)).tolist() == pytest.approx(MEAN, abs=2e-3)
    assert found.std((0, 2, 3)).tolist() == pytest.approx(STD, rel=0.02)
    assert abs(correlation(found[:, :1])) < 0.02


@pytest.mark.parametrize("smoothness", [1.0, 2.0])
def test_smooth_noise_has_the_deviation_of_the_normalisation_too(model, smoothness):
    torch.manual_seed(0)
    normalised = (priors.range_pictures(model, 200, smoothness) - model.mean) / model.std
    assert normalised.std((1, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)
    assert normalised.mean().item() == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("grey", [0.0, 0.8, 1.0])
def test_grey_is_the_share_of_the_variance_that_all_channels_of_a_picture_have_in_common(grey):
    colours = Normalized(nn.Identity(), [0.5] * 3, [0.05, 0.1, 0.02], 16)
    torch.manual_seed(0)
    own, common = torch.randn(20, 3, 16, 16), torch.randn(20, 1, 16, 16)
    expected = colours.mean + colours.std * ((1 - grey) ** 0.5 * own + grey**0.5 * common)
    torch.manual_seed(0)
    assert torch.equal(priors.range_pictures(colours, 20, grey=grey), expected.clamp(0, 1))


@pytest.mark.parametrize("smoothness", [0.5, 1.0])
def test_the_amplitude_falls_with_the_frequency_to_the_smoothness(smoothness):
    grey = Normalized(nn.Identity(), [0.5], [0.01], 32)  # so little that nothing is clipped
    torch.manual_seed(0)
    spectrum = torch.fft.rfft2(priors.range_pictures(grey, 2000, smoothness) - 0.5).abs().mean((0, 1))
    for double, single in [(2, 1), (4, 2), (8, 4)]:
        for found in (spectrum[0, double] / spectrum[0, single], spectrum[double, 0] / spectrum[single, 0]):
            assert found.item() == pytest.approx(2**-smoothness, rel=0.06)


@pytest.mark.parametrize("smoothness", [0.0, 1.0, 2.0])
def test_noise_that_leaves_the_range_is_clipped(smoothness):
    found = priors.range_pictures(Normalized(nn.Identity(), [0.5], [1.0], 16), 8, smoothness)
    assert (found.min(), found.max()) == (0, 1)
    assert found.shape == (8, 1, 16, 16)


@pytest.mark.parametrize("smoothness", [0.0, 2.0])
def test_the_global_generator_decides(model, smoothness):
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(priors.range_pictures(model, 2, smoothness))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("size", [None, (8, 8), (33, 33), (9, 20), (20, 9)])
def test_pictures_come_in_the_size_that_was_asked_for(model, size):
    for smoothness in (0.0, 1.0):
        assert priors.range_pictures(model, 2, smoothness, size=size).shape == (2, 3, *(size or (32, 32)))


def test_pictures_have_the_height_and_the_width_of_the_model(wide):
    for smoothness in (0.0, 1.0):
        assert priors.range_pictures(wide, 2, smoothness).shape == (2, 1, 12, 40)
    assert priors.selection_pictures(wide, 3).shape == (3, 1, 12, 40)


def test_smooth_noise_is_as_smooth_down_as_across_where_pictures_are_not_square(wide):
    torch.manual_seed(0)
    found = priors.range_pictures(wide, 300, 1.0)
    across, down = correlation(found), correlation(found.transpose(-1, -2))
    assert across == pytest.approx(down, abs=0.08)
    assert min(across, down) > 0.4
    normalised = (found - wide.mean) / wide.std
    assert normalised.std((1, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)


def test_pictures_have_the_type_of_the_model(model):
    assert priors.range_pictures(model.double(), 1, 1.0).dtype == torch.float64
    assert priors.selection_pictures(model.double(), 1).dtype == torch.float64


def test_the_selection_pictures_are_always_the_same(model):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = priors.selection_pictures(model)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(priors.selection_pictures(model), first)
    torch.manual_seed(0)
    assert torch.equal(first, (priors.range_pictures(model, 100, smoothness=1.0, grey=0.8) + model.mean) / 2)
    assert first.shape == (100, 3, 32, 32)
    assert len(first.flatten(1).unique(dim=0)) == 100


def test_the_record_says_what_the_selection_is():
    assert priors.selection_record(None) == {"selection": "noise pictures"}
    found, other = (priors.selection_record(torch.full((7, 1, 1, 1), value)) for value in (0.0, 0.1))
    assert found["selection"] == other["selection"] == "7 images"
    assert len(found["selection_sha256"]) == 64
    assert found["selection_sha256"] != other["selection_sha256"]


@pytest.mark.parametrize("size", [(12, 12), (32, 32), (57, 57), (24, 32), (40, 15)])
@pytest.mark.parametrize("picture_size", [(12, 12), (32, 32), (80, 80), (24, 32), (15, 40)])
def test_augmented_pictures_fit_the_model_and_stay_in_range(size, picture_size):
    augment = priors.augmentation(size, MEAN)
    torch.manual_seed(0)
    picture = torch.rand(3, *picture_size)
    for _ in range(40):
        found = augment(picture)
        assert found.shape == (3, *size)
        assert found.min() >= -1e-6
        assert found.max() <= 1 + 1e-6


def test_augmentation_follows_the_seed():
    augment, picture, found = priors.augmentation((24, 24), MEAN), torch.rand(3, 24, 24), []
    for seed in (0, 0, *range(1, 30)):
        torch.manual_seed(seed)
        found.append(augment(picture))
    assert torch.equal(found[0], found[1])
    assert len(torch.stack(found).flatten(1).unique(dim=0)) > 20


def test_augmentation_leaves_the_picture_alone():
    augment, picture = priors.augmentation((24, 24), MEAN), torch.rand(3, 24, 24)
    before = picture.clone()
    for _ in range(20):
        augment(picture)
    assert torch.equal(picture, before)


def test_what_the_augmentation_adds_has_the_colour_of_the_fill():
    picture = torch.tensor(MEAN)[:, None, None].expand(3, 30, 20)
    augment = priors.augmentation((24, 16), MEAN)
    torch.manual_seed(0)
    for _ in range(60):
        share = augment(picture) / picture[:, :1, :1]
        assert share.max() < 1 + 1e-5
        assert share.min() > 0.75 - 1e-5  # torchvision's rotation darkens the seam by up to a quarter


def test_the_parts_of_the_augmentation_are_those_of_the_authors():
    scale, mirror, rotate, blur, crop, resize, centre = priors.augmentation((100, 120), MEAN).transforms
    assert [part.p for part in (scale, mirror, rotate, blur, crop)] == [0.5] * 5
    assert (scale.transforms[0].min_size, scale.transforms[0].max_size) == (75, 151)  # the second is excluded
    assert {rotation.interpolation for rotation in rotate.transforms[0].transforms} == {InterpolationMode.BILINEAR}
    assert [tuple(part.kernel_size) for part in blur.transforms[0].transforms] == [(n, n) for n in (3, 5, 7, 9)]
    assert {tuple(part.sigma) for part in blur.transforms[0].transforms} == {(1.0, 1.0)}
    assert (list(resize.size), tuple(centre.size)) == ([114], (100, 120))


def tilt(picture):
    """The angle in degrees of the bright bar in a grey picture (1, H, W): of the principal axis of its light."""
    light = picture[0].double()
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in light.shape), indexing="ij")
    x, y = (v - (v * light).sum() / light.sum() for v in (x, y))
    xx, yy, xy = ((a * b * light).sum() for a, b in ((x, x), (y, y), (x, y)))
    return torch.rad2deg(torch.atan2(2 * xy, xx - yy) / 2).item()


def test_half_of_the_pictures_are_rotated_and_every_angle_turns_up():
    bar = torch.zeros(1, 160, 160)
    bar[:, 78:82, 20:140] = 1
    augment = priors.augmentation((160, 160), [0.0])
    torch.manual_seed(0)
    tilts = [tilt(augment(bar)) for _ in range(480)]
    near = [min((0, *priors.ANGLES), key=lambda angle, found=found: abs(angle - found)) for found in tilts]
    assert set(near) == {0, *priors.ANGLES}
    assert 200 < near.count(0) < 280
    assert all(12 < near.count(angle) < 55 for angle in priors.ANGLES)
