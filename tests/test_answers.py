"""What a network may do and say: in-place work, foreign shapes, NaN, probabilities, no gradient, other types."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from uaplib import attacks, metrics
from uaplib.attacks import deepfool, fast_feature_fool, fgsm, gd_uap, iterated_fgsm, uap
from uaplib.attacks.activations import Settings
from uaplib.balls import NormBall
from uaplib.metrics import depth, segmentation
from uaplib.models import Normalized
from uaplib.perturbation import noise
from uaplib.transfer import transfer_matrix

BALL = NormBall(math.inf, 0.1)
SHORT = Settings(learning_rate=0.01, batch_size=2, max_iterations=3, check_every=2, check_after=0, patience=9)
ENTRANCES = {
    "predict": metrics.predict,
    "evaluate": lambda model, x: metrics.evaluate(model, x, torch.zeros(len(x), dtype=torch.int64), 0 * x[:1]),
    "fgsm": lambda model, x: fgsm(model, x, 0.1),
    "iterated_fgsm": lambda model, x: iterated_fgsm(model, x, 0.1, step=0.05, steps=2),
    "deepfool": lambda model, x: deepfool(model, x, max_iterations=3),
    "uap": lambda model, x: uap(model, x, BALL, max_passes=1, held_out=x),
    "transfer": lambda model, x: transfer_matrix(
        {"noise": noise(BALL, (1, 4, 4))}, {"victim": model}, (x, torch.zeros(len(x), dtype=torch.int64))
    ),
}
GRADIENTS = [name for name in ENTRANCES if name not in ("predict", "evaluate", "transfer")]
everywhere = pytest.mark.parametrize("name", ENTRANCES)


@pytest.fixture
def images():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1


class Network(nn.Module):
    """A linear classifier of 4 x 4 pixels, with something done to its input and to its output."""

    def __init__(self, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.linear, self.before, self.after = nn.Linear(16, 3, bias=False), before, after
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
        self.eval()

    def forward(self, x):
        return self.after(self.linear(self.before(x).flatten(1)))


IN_PLACE = {
    "subtraction": lambda x: x.sub_(0.5),
    "rectifier": lambda x: torch.relu_(x.sub_(0.3)),
    "zeroed border": lambda x: x.index_fill_(2, torch.tensor([0]), 0.0),
}


@everywhere
@pytest.mark.parametrize("work", IN_PLACE)
def test_a_network_that_works_in_place_never_gets_the_callers_memory(name, work, images):
    before = images.clone()
    ENTRANCES[name](Network(IN_PLACE[work]), images)
    assert torch.equal(images, before)


def told(result):
    """The result of any entrance as text, without what a clock says."""
    return str({name: value for name, value in vars(result).items() if name != "run"} or result)


@everywhere
@pytest.mark.parametrize("work", IN_PLACE)
def test_working_in_place_changes_no_result(name, work, images):
    found, expected = (
        ENTRANCES[name](Network(before), images) for before in (IN_PLACE[work], lambda x: IN_PLACE[work](x.clone()))
    )
    assert told(found) == told(expected)


ANSWERS = {
    "one logit": (lambda y: y[:, :1], r"logits of shape \(.*, 1\), so that every image has class 0"),
    "one number an image": (lambda y: y[:, 0], "must return floating-point logits"),
    "a dictionary": (lambda y: {"out": y, "aux": y}, r"a dict with the keys \['out', 'aux'\].*network\(x\)\['out'\]"),
    "a tuple": (lambda y: (y, y), r"returns a tuple, not a tensor.*network\(x\)\[0\]"),
    "labels": (lambda y: y.argmax(1, keepdim=True).expand(-1, 3), "returns torch.int64"),
    "one row too many": (lambda y: torch.cat([y, y[:1]]), r"of shape \(\d+, 3\) for \d+ images"),
    "NaN": (lambda y: y * math.nan, "returns NaN or infinity for [16] of [16] images"),
    "infinity": (lambda y: y / 0, "returns NaN or infinity"),
    "nothing": (lambda y: None, "returns a NoneType"),
}  # fmt: skip


@everywhere
@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_no_answer_is_refused_with_what_to_do(name, case, images):
    after, message = ANSWERS[case]
    with pytest.raises(ValueError, match=message):
        ENTRANCES[name](Network(after=after), images)


def test_nan_for_a_single_image_is_refused_and_counted(images):
    def after(logits):
        return torch.where(logits.argmax(1, keepdim=True) == logits[:1].argmax(1), math.nan, logits)

    lost = int(Network(after=after)(images).isnan().any(1).sum())
    assert 0 < lost < len(images)
    with pytest.raises(ValueError, match=f"NaN or infinity for {lost} of {len(images)} images"):
        metrics.predict(Network(after=after), images)


class Map(nn.Module):
    """A network that says something about every pixel: its channels, weighed."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = torch.tensor(weights).view(1, -1, 1, 1)
        self.eval()

    def forward(self, x):
        return x * self.weights


@pytest.mark.parametrize("weight", [-1.0, 0.0])
def test_one_map_that_is_not_positive_is_no_depth(images, weight):
    with pytest.raises(ValueError, match=r"read as depth, which is positive.*torch.cat\(\[-x, x\], dim=1\)"):
        metrics.predict(Map(weight), images)


def test_the_maps_of_a_segmenter_with_one_logit_have_no_fooling_rate():
    logits = torch.tensor([[[2.0, 1.0, -1.0, -2.0]]])
    for other in (-logits, 1.3 * logits, logits.abs()):
        with pytest.raises(ValueError, match="read as depth, which is positive"):
            metrics.fooling_rate(logits, other)
    assert metrics.fooling_rate(logits.abs(), 1.3 * logits.abs()).value == 1


@pytest.mark.parametrize("name", ["fgsm", "deepfool", "uap", "transfer"])
def test_a_map_is_refused_where_classes_of_images_are_needed(name, images):
    with pytest.raises(ValueError, match="must be a classifier, with logits"):
        ENTRANCES[name](Map(1.0, 2.0), images)


@pytest.mark.parametrize("name", GRADIENTS)
def test_probabilities_are_pointed_out(name, images):
    with pytest.warns(UserWarning, match="the model returns probabilities"):
        ENTRANCES[name](Network(after=lambda y: y.softmax(1)), images)


@pytest.mark.parametrize("steepness", [60, 300, 2000])
def test_behind_a_saturated_softmax_deepfool_succeeds_only_with_steps_that_mean_something(images, steepness):
    with pytest.warns(UserWarning, match="the model returns probabilities|longer than from black to white"):
        found = deepfool(Network(after=lambda y: (steepness * y).softmax(1)), images)
    lengths = metrics.norms(found.perturbations)
    assert (lengths[found.success] <= 4).all()  # the square root of 16 pixels
    assert found.success.tolist() == ((found.labels != found.new_labels) & (lengths <= 4)).tolist()


def test_steps_without_a_meaning_are_counted_in_a_warning_and_are_no_success(images):
    tiny = Network(after=lambda y: 1e3 * torch.tensor([1.0, 0, -1]) + 1e-6 * y)
    with pytest.warns(UserWarning, match="for 6 of 6 images the steps are longer than from black to white"):
        found = deepfool(tiny, images)
    assert (metrics.norms(found.perturbations) > 1e6).all()
    assert (found.labels != found.new_labels).any()
    assert not found.success.any()


def test_a_single_step_without_a_meaning_is_a_failure_without_a_warning(images, recwarn):
    def after(y):  # nearly flat for the first image alone
        slope = torch.where(torch.arange(len(y)) == 0, 1e-6, 1.0).view(-1, 1)
        return 1e3 * (slope < 1) * torch.tensor([1.0, 0, -1]) + slope * y

    found = deepfool(Network(after=after), images, batch_size=6, max_iterations=1)
    assert metrics.norms(found.perturbations)[0] > 1e6
    assert not found.success[0]
    assert not recwarn.list


def test_uap_takes_no_step_without_a_meaning(images):
    tiny = Network(after=lambda y: 1e3 * torch.tensor([1.0, 0, -1]) + 1e-6 * y)
    assert uap(tiny, images, BALL, max_passes=2).history[1]["accepted"] == 0


FLAT = {
    "rounding": lambda y: y + (y.detach().round() - y.detach()) - y + y.detach(),
    "threshold": lambda y: (y > 0).float(),
    "cut off": lambda y: y.detach() + 0 * y,
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", FLAT)
def test_a_gradient_of_zero_everywhere_is_not_taken_for_robustness(name, case, images):
    def after(y):
        return FLAT[case](y) + 0 * y.sum()  # connected, so that there is a gradient: zero

    with pytest.warns(UserWarning, match="the gradient is exactly zero for all of 6 images"):
        ENTRANCES[name](Network(after=after), images)


@pytest.mark.parametrize("attack", [fast_feature_fool, gd_uap])
def test_a_gradient_of_zero_is_pointed_out_without_images_too(attack):
    class Rounding(nn.Module):
        def forward(self, x):
            return (x.detach().round() + 2) + 0 * x

    network = nn.Sequential(Rounding(), nn.Conv2d(1, 2, 1), nn.Flatten())
    with pytest.warns(UserWarning, match="the gradient is exactly zero"):
        attack(Normalized(network, [0.5], [0.25], 4).eval(), BALL, settings=SHORT, layers=["network.1"])


def test_a_gradient_that_is_zero_for_some_images_passes(images, recwarn):
    def after(y):
        return torch.where((y.argmax(1) == y[0].argmax()).view(-1, 1), y.detach() + 0 * y, y)

    fgsm(Network(after=after), images, 0.1)
    assert not recwarn.list


TYPES = [torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@everywhere
def test_images_of_any_floating_type_do(name, dtype, images):
    ENTRANCES[name](Network().to(dtype), images.to(dtype))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("attack", [fast_feature_fool, gd_uap])
def test_networks_of_any_floating_type_are_over_activated(attack, dtype):
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 4), nn.Flatten())
    model = Normalized(network, [0.5], [0.25], 4).eval().to(dtype)
    settings = Settings(learning_rate=0.01, batch_size=1, max_iterations=20, check_every=10, check_after=0, patience=9)
    found = attack(model, BALL, settings=settings)
    assert torch.isfinite(found.delta).all()
    assert BALL.contains(found.delta)
    assert found.history[-1]["loss"] < found.history[0]["loss"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_uap_of_low_precision_keeps_its_budget_and_moves(dtype, images):
    found = uap(Network().to(dtype), images.to(dtype), BALL, max_passes=2, target_rate=1.0)
    assert BALL.contains(found.delta)
    assert found.history[-1]["crafting_fooling_rate"] > 0


@everywhere
def test_a_network_that_casts_its_input_is_asked_not_judged_by_its_parameters(name, images):
    model = Network(before=lambda x: x.double()).double()
    result = ENTRANCES[name](model, images)
    if isinstance(result, torch.Tensor) and result.is_floating_point():
        assert result.dtype == images.dtype


@everywhere
def test_grey_images_do_for_a_network_that_repeats_the_channel(name, images):
    class Repeating(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 4)

        def forward(self, x):
            return self.convolution(x.repeat(1, 3, 1, 1)).flatten(1)

    ENTRANCES[name](Repeating().eval(), images)


def test_grey_images_are_refused_where_broadcasting_would_repeat_them_without_a_word(images):
    model = Normalized(nn.Conv2d(3, 3, 4), [0.5] * 3, [0.25] * 3, 4).eval()
    with pytest.raises(ValueError, match="images have 1 channels, the model takes 3"):
        metrics.predict(model, images)


@everywhere
def test_the_reason_of_a_network_that_fails_is_passed_on(name, images):
    def broken(x):
        raise KeyError("the cache of position codes is empty\nand more")

    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 1, 4, 4\).*position codes"):
        ENTRANCES[name](Network(broken), images)


@pytest.mark.parametrize("name", GRADIENTS)
def test_inference_mode_is_refused_in_plain_words(name, images):
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"attacks need gradients.*torch.inference_mode"):
        ENTRANCES[name](Network(), images)


@pytest.mark.parametrize("attack", [fast_feature_fool, gd_uap])
def test_attacks_without_data_need_a_normalized_model_and_say_so(attack):
    with pytest.raises(TypeError, match=r"the model is a Network.*Normalized\(network, mean, std, size\)"):
        attack(Network(), BALL)
    model = Normalized(Network(), [0.5], [0.25], 4).eval()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="torch.inference_mode"):
        attack(model, BALL)


def test_normalized_takes_whole_numbers(images):
    model = Normalized(nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()), [0], [1], 4).eval()
    assert model.mean.dtype == model.std.dtype == torch.float32
    assert gd_uap(model, BALL, settings=SHORT).delta.dtype == torch.float32


@pytest.mark.parametrize(
    ("mean", "std"),
    [([123.7], [58.4]), ([0.5], [58.4]), ([124], [0.25]), ([-0.5], [0.5]), ([math.nan], [0.5]), ([0.5], [math.nan])],
)
def test_normalized_refuses_numbers_on_another_scale(mean, std):
    with pytest.raises(ValueError, match="std"):
        Normalized(nn.Identity(), mean, std)


@pytest.mark.parametrize("backend", ["fbgemm", "onednn"])
def test_quantised_networks_are_victims(images, backend):
    if backend not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this build of PyTorch has no {backend}")
    torch.backends.quantized.engine = backend
    victims = {
        name: torch.ao.quantization.quantize_dynamic(Network(), {nn.Linear}, dtype=torch.qint8).eval()
        for name in ("a", "b")
    }
    labels = torch.zeros(len(images), dtype=torch.int64)
    table = transfer_matrix({"noise": noise(BALL, (1, 4, 4))}, victims, (images, labels)).table
    assert table.fooling_rate.tolist() == [table.fooling_rate[0]] * 2


def test_segmentation_refuses_training_mode_before_it_runs_the_network(images):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = model[1].running_mean.clone()
    labels = torch.zeros(6, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="model is in training mode"):
        segmentation.evaluate(model, images, labels, 0 * images[:1])
    assert torch.equal(model[1].running_mean, before)


def test_measures_say_when_there_is_nothing_to_measure(images):
    with pytest.raises(ValueError, match="no pixel of labels has a class"):
        segmentation.evaluate(Map(1.0, 2.0), images, torch.full((6, 4, 4), 2), 0 * images[:1])
    with pytest.raises(ValueError, match="no pixel of truth has a depth"):
        depth.evaluate(Map(1.0), images, torch.zeros(6, 4, 4), 0 * images[:1])
    black = images.clone()
    black[2] = 0
    with pytest.raises(ValueError, match="image 2 is black"):
        metrics.rho_adv(black, images)


NUMPY = {
    "uap": lambda model, x: uap(
        model, x, BALL, seed=np.int64(3), max_passes=np.int64(1), overshoot=np.float32(0.02), target_rate=np.float64(1),
        num_classes=np.int32(3), max_iterations=np.int16(9), clip=np.bool_(True),
    ),
    "fff": lambda model, x: fast_feature_fool(model, BALL, seed=np.int64(3), settings=numpy_settings()),
    "gd_uap": lambda model, x: gd_uap(model, BALL, seed=np.uint8(3), settings=numpy_settings()),
}  # fmt: skip


def numpy_settings():
    return Settings(
        learning_rate=np.float32(0.01), batch_size=np.int64(1), max_iterations=np.int64(3), check_every=np.int32(2),
        check_after=np.int64(0), patience=np.int64(9), clip=np.bool_(True),
    )  # fmt: skip


@pytest.mark.parametrize("name", NUMPY)
def test_numbers_of_numpy_are_taken_and_can_be_saved(name, images, tmp_path):
    model = Normalized(nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), [0.5], [0.25], 4).eval()
    found = NUMPY[name](model, images)
    found.save(tmp_path / "v")
    assert type(found.seed) is int
    assert all(type(value) in (int, float, bool, str, list, type(None)) for value in found.parameters.values())


def test_what_is_no_number_is_refused_at_the_entrance(images):
    with pytest.raises(TypeError, match="max_passes must be a number, a text"):
        uap(Network(), images, BALL, max_passes=[3])
    with pytest.raises(TypeError, match="patience must be a number"):
        Settings(learning_rate=0.01, batch_size=1, max_iterations=3, check_every=2, check_after=0, patience=np.ones(2))


def test_held_out_images_need_no_labels(images):
    alone, pair = (uap(Network(), images, BALL, held_out=h, max_passes=1) for h in (images, (images, None)))
    assert alone.history == pair.history
    assert "held_out_fooling_rate" in alone.history[-1]
    assert "held_out_accuracy" not in alone.history[-1]


@pytest.mark.parametrize("eps", [8, 16 / 10])
def test_a_budget_above_the_whole_range_is_doubted(eps, images):
    with pytest.warns(UserWarning, match=f"did you mean {eps:g}/255"):
        NormBall(math.inf, eps)
    with pytest.warns(UserWarning, match=f"did you mean {eps:g}/255"):
        fgsm(Network(), images, eps)


def test_the_settings_are_exported():
    assert attacks.GD_UAP_DEFAULTS.keys() == {"none", "range", "data"}


SEEDED = {
    "uap": lambda model, x, seed: uap(model, x, BALL, seed=seed, max_passes=1),
    "fff": lambda model, x, seed: fast_feature_fool(model, BALL, seed=seed, settings=SHORT),
    "gd_uap": lambda model, x, seed: gd_uap(model, BALL, seed=seed, settings=SHORT),
    "noise": lambda model, x, seed: noise(BALL, (1, 4, 4), seed=seed),
}


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [(3.0, TypeError, "seed must be a whole number, not 3.0"), (True, TypeError, "seed must be a whole number"),
     ("3", TypeError, "seed must be a whole number, not '3'"), (np.float32(3), TypeError, "seed must be a whole"),
     (-1, ValueError, "seed must lie in 0"), (2**64, ValueError, "seed must lie in 0 ... ")],
    ids=str,
)  # fmt: skip
def test_a_seed_is_a_whole_number_of_64_bits(name, seed, error, message, images):
    model = Normalized(nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), [0.5], [0.25], 4).eval()
    with pytest.raises(error, match=message):
        SEEDED[name](model, images, seed)


@pytest.mark.parametrize("argument", ["max_passes", "num_classes", "max_iterations"])
def test_counts_are_whole_numbers(argument, images):
    with pytest.raises(TypeError, match=f"{argument} must be a whole number, not 4.0"):
        uap(Network(), images, BALL, **{argument: 4.0})


class Root(nn.Module):
    """The square root of the distance from grey: finite everywhere, with an infinite gradient at grey."""

    def forward(self, x):
        return (x - 0.5).square().sum((1, 2, 3)).sqrt()[:, None] * torch.tensor([1.0, -1.0, 0.5]) + torch.arange(3.0)


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_that_is_no_number_is_not_taken_for_zero(name, images):
    images[2] = 0.5
    with pytest.raises(FloatingPointError, match="the gradient is NaN or infinite for 1 of"):
        ENTRANCES[name](Root().eval(), images)


CUT = {"no_grad": lambda y: y.detach(), "rounded to numpy": lambda y: torch.from_numpy(y.detach().numpy().round(1))}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("cut", CUT)
def test_an_output_without_a_gradient_is_refused_in_plain_words(name, cut, images):
    with pytest.raises(ValueError, match="no gradient leads from the model's output to its images"):
        ENTRANCES[name](Network(after=CUT[cut]), images)
    metrics.predict(Network(after=CUT[cut]), images)  # as a victim it will do


@pytest.mark.parametrize("shape", [(8, 1, 8, 8), (8, 3, 1, 1), (8, 3, 9, 9), (8, 3, 8, 9)])
def test_data_of_another_shape_is_not_broadcast(shape):
    model = Normalized(nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()), [0.5] * 3, [0.25] * 3, 8).eval()
    with pytest.raises(ValueError, match=r"images are .*, the model takes \(3, 8, 8\)"):
        gd_uap(model, BALL, prior="data", images=torch.rand(shape), settings=SHORT)


@pytest.mark.parametrize("prior", ["none", "range", "data"])
def test_a_seed_of_numpy_draws_the_same_pictures(prior, images):
    model = Normalized(nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten()), [0.5], [0.25], 4).eval()
    data = images if prior == "data" else None
    first, second = (
        gd_uap(model, BALL, prior=prior, images=data, seed=seed, settings=SHORT).delta for seed in (3, np.int64(3))
    )
    assert torch.equal(first, second)
