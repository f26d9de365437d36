"""Each rule of training against the same step written out, in double precision, and where one becomes another."""

import math

import pytest
import torch
from torch import nn

from uaplib.balls import NormBall
from uaplib.defences import (
    CleanTraining,
    DemocraticTraining,
    PoolTraining,
    SharedTraining,
    TrainingSettings,
    UniversalTraining,
    deep_features,
    entropy,
    train,
)
from uaplib.defences._rules import Batch
from uaplib.defences._seeds import derived_seed

COUNT, PIXELS, CLASSES, SEED = 8, 4, 3, 7
RATE, MOMENTUM, DECAY = 0.3, 0.9, 0.01
LINF, L2 = NormBall(math.inf, 0.1), NormBall(2, 0.15)
balls = pytest.mark.parametrize("ball", [LINF, L2], ids=["linf", "l2"])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def images():
    """Eight images of 2 x 2, so far inside [0, 1] that no perturbation of the tests leads out."""
    return (0.5 + 0.1 * random(COUNT, 1, 2, 2)).clamp(0.3, 0.7)


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 0, 1, 2, 1, 1])


def linear_network():
    """Logits W x + b, and W and b."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES)).double()
    network[1].weight.data, network[1].bias.data = random(CLASSES, PIXELS, seed=1), random(CLASSES, seed=2)
    return network, network[1].weight.detach().clone(), network[1].bias.detach().clone()


def errors(w, b, x, y):
    """p - y of a linear network, (N, K): the gradient of each image's cross-entropy with respect to its logits."""
    return torch.softmax(x @ w.T + b, 1) - nn.functional.one_hot(y, CLASSES)


def pixel_gradients(w, b, x, y):
    """The gradient of each image's cross-entropy with respect to its pixels, (N, D)."""
    return errors(w, b, x, y) @ w


class Descent:
    """SGD with momentum and weight decay, from its formulas."""

    def __init__(self, *weights):
        self.weights, self.velocities = list(weights), [torch.zeros_like(w) for w in weights]

    def step(self, *gradients):
        for k, gradient in enumerate(gradients):
            self.velocities[k] = MOMENTUM * self.velocities[k] + gradient + DECAY * self.weights[k]
            self.weights[k] = self.weights[k] - RATE * self.velocities[k]


def linear_step(descent, parts, y):
    """A step down the sum of weighted mean cross-entropies on flat images."""
    w, b = descent.weights
    each = [(share, errors(w, b, x, y) / len(x), x) for share, x in parts]
    descent.step(sum(s * e.T @ x for s, e, x in each), sum(s * e.sum(0) for s, e, _ in each))


def up(ball, v, gradient, size):
    """A step up the gradient, projected, for flat perturbations (M, D)."""
    if ball.p == 2:
        v = v + size * gradient / gradient.norm(dim=1, keepdim=True)
        return v * (ball.eps / v.norm(dim=1, keepdim=True)).clamp(max=1)
    return (v + size * gradient.sign()).clamp(-ball.eps, ball.eps)


def settings(**changes):
    return TrainingSettings(
        **{"epochs": 3, "batch_size": COUNT, "learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
        | changes
    )


def orders(draw=lambda: None, epochs=3):
    """What the seed makes of the epochs: the order of the images, and what is drawn after it."""
    found = []
    with torch.random.fork_rng():
        for epoch in range(epochs):
            torch.manual_seed(derived_seed(SEED, epoch))
            found.append((torch.randperm(COUNT), draw()))
    return found


def close(found, expected):
    torch.testing.assert_close(found, expected.view(found.shape), rtol=0, atol=1e-12)


def check_linear(network, descent):
    close(network[1].weight.detach(), descent.weights[0])
    close(network[1].bias.detach(), descent.weights[1])


def test_clean_training_is_gradient_descent_with_momentum(images, labels):
    model, *weights = linear_network()
    descent = Descent(*weights)
    for _ in range(3):
        linear_step(descent, [(1.0, images.flatten(1))], labels)
    check_linear(train(model, images, labels, CleanTraining(), settings=settings(), seed=SEED).model, descent)


def test_the_learning_rate_follows_the_cosine(images, labels):
    model, w, b = linear_network()
    for rate in (RATE, RATE / 2):
        e = errors(w, b, images.flatten(1), labels) / COUNT
        w, b = w - rate * e.T @ images.flatten(1), b - rate * e.sum(0)
    chosen = settings(epochs=2, momentum=0.0, weight_decay=0.0, schedule="cosine")
    check_linear(train(model, images, labels, CleanTraining(), settings=chosen).model, Descent(w, b))


@balls
@pytest.mark.parametrize("mode", ["alternating", "simultaneous"])
@pytest.mark.parametrize("step", [1.0, 0.3])
def test_universal_training(images, labels, ball, mode, step):
    model, *weights = linear_network()
    descent, x, delta = Descent(*weights), images.flatten(1), torch.zeros(1, PIXELS).double()
    for _ in range(3):
        seen, before = x + delta, list(descent.weights)
        linear_step(descent, [(1.0, seen)], labels)
        gradient = pixel_gradients(*(descent.weights if mode == "alternating" else before), seen, labels)
        delta = up(ball, delta, gradient.mean(0, keepdim=True), step * ball.eps)
    rule = UniversalTraining(ball=ball, mode=mode, step=step)
    found = train(model, images, labels, rule, settings=settings(), seed=SEED)
    check_linear(found.model, descent)
    assert found.memory.keys() == {"delta"}
    assert found.memory["delta"].shape == (1, 1, 2, 2)
    close(found.memory["delta"], delta)
    assert ball.contains(found.memory["delta"]).all()
    assert (ball.norm(found.memory["delta"]).item() == pytest.approx(ball.eps)) == (step == 1.0)


def test_the_two_modes_differ_where_weights_move(images, labels):
    model, *_ = linear_network()
    found = [
        train(model, images, labels, UniversalTraining(ball=L2, mode=mode), settings=settings()).memory["delta"]
        for mode in ("alternating", "simultaneous")
    ]
    assert not torch.equal(*found)


@balls
def test_without_a_learning_rate_alternating_is_simultaneous(images, labels, ball):
    model, *_ = linear_network()
    chosen = settings(learning_rate=0.0, epochs=5, batch_size=3)
    one, other = (
        train(model, images, labels, UniversalTraining(ball=ball, mode=mode, step=0.4), settings=chosen, seed=SEED)
        for mode in ("alternating", "simultaneous")
    )
    assert torch.equal(one.memory["delta"], other.memory["delta"])
    assert one.memory["delta"].any()
    assert torch.equal(one.model[1].weight, model[1].weight)


def test_the_perturbation_is_never_reset(images, labels):
    """Where weights stand still, many epochs of few batches are one walk of the perturbation."""
    model, w, b = linear_network()
    delta = torch.zeros(1, PIXELS).double()
    for order, _ in orders(epochs=4):
        for some in order.split(4):
            gradient = pixel_gradients(w, b, images.flatten(1)[some] + delta, labels[some]).mean(0, keepdim=True)
            delta = up(L2, delta, gradient, 0.3 * L2.eps)
    chosen = settings(learning_rate=0.0, batch_size=4, epochs=4)
    found = train(model, images, labels, UniversalTraining(ball=L2, step=0.3), settings=chosen, seed=SEED)
    close(found.memory["delta"], delta)


def test_training_with_a_pool(images, labels):
    pool = 0.05 * random(3, 1, 2, 2, seed=5)
    model, *weights = linear_network()
    descent, counts = Descent(*weights), []
    for order, (uniform, which) in orders(lambda: (torch.rand(COUNT), torch.randint(3, (COUNT,)))):
        seen = images[order].clone()
        for k in range(COUNT):
            if uniform[k] < 0.4:
                seen[k] += pool[which[k]]
        counts.append(int((uniform < 0.4).sum()))
        linear_step(descent, [(1.0, seen.flatten(1))], labels[order])
    assert 0 < sum(counts) < 3 * COUNT
    rule = PoolTraining(pool=pool, probability=0.4)
    check_linear(train(model, images, labels, rule, settings=settings(), seed=SEED).model, descent)


def test_how_often_and_which(images, labels):
    many = images[:1].expand(4000, -1, -1, -1)
    pool = torch.tensor([0.01, 0.02, 0.03]).double().view(3, 1, 1, 1).expand(3, 1, 2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ((weight, seen),) = PoolTraining(pool=pool).parts(Batch(nn.Identity(), many, labels), {})
    added = (100 * (seen - many)[:, 0, 0, 0]).round().long()
    assert weight == 1.0
    assert abs((added > 0).double().mean().item() - 0.5) < 0.04
    assert all(abs((added == k).double().mean().item() - 1 / 6) < 0.03 for k in (1, 2, 3))


def test_no_gradient_reaches_the_pool_or_the_images(images, labels):
    model, *_ = linear_network()
    pool = torch.zeros(1, 1, 2, 2).double().requires_grad_()
    train(model, images.requires_grad_(), labels, PoolTraining(pool=pool), settings=settings())
    assert pool.grad is None
    assert images.grad is None


@pytest.mark.parametrize("heap", [1, 2, COUNT])
@pytest.mark.parametrize("cap", [None, 1.2])
@balls
def test_shared_training(images, labels, heap, cap, ball):
    model, *weights = linear_network()
    descent, capped = Descent(*weights), 0
    for order, start in orders(lambda: ball.sample((COUNT // heap, 1, 2, 2)).double().flatten(1)):
        x, y, v = images.flatten(1)[order], labels[order], start
        for _ in range(3):
            gradients = []
            for k in range(COUNT // heap):
                some = slice(k * heap, (k + 1) * heap)
                seen = x[some] + v[k]
                losses = nn.functional.cross_entropy(
                    seen @ descent.weights[0].T + descent.weights[1], y[some], reduction="none"
                )
                counts = torch.ones(heap) if cap is None else losses < cap
                capped += int((~counts.bool()).sum())
                gradients.append((counts[:, None] * pixel_gradients(*descent.weights, seen, y[some])).sum(0))
            gradients = torch.stack(gradients)
            step = up(ball, v, gradients, 0.5 * ball.eps)
            v = torch.where(gradients.any(1, keepdim=True), step, v)  # a heap whose images are all capped stays
        perturbed = x + v.repeat_interleave(heap, 0)
        linear_step(descent, [(0.7, perturbed), (0.3, x)], y)
    assert (capped > 0) == (cap is not None)
    rule = SharedTraining(ball=ball, heap=heap, steps=3, step=0.5, sigma=0.7, cap=cap)
    check_linear(train(model, images, labels, rule, settings=settings(), seed=SEED).model, descent)


def test_a_heap_of_one_is_adversarial_training_image_by_image(images, labels):
    """One batch, every image by itself with autograd, in [0, 1] after each step, as such programs do."""
    images = images * (images > 0.5)  # some pixels are black
    model, *weights = linear_network()
    ((order, start),) = orders(lambda: LINF.sample((COUNT, 1, 2, 2)).double(), epochs=1)
    adversarial = []
    for image, label, v in zip(images[order], labels[order], start, strict=True):
        x = (image + v).clamp(0, 1)[None]
        for _ in range(2):  # so few that it matters whether the start is in [0, 1]
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), label[None]), x)
            x = (x + 0.05 * gradient.sign()).detach()
            x = torch.minimum(torch.maximum(x, image - 0.1), image + 0.1).clamp(0, 1)
        adversarial.append(x)
    descent = Descent(*weights)
    linear_step(descent, [(1.0, torch.cat(adversarial).flatten(1))], labels[order])
    rule = SharedTraining(ball=LINF, heap=1, steps=2, sigma=1.0, cap=None)
    check_linear(train(model, images, labels, rule, settings=settings(epochs=1), seed=SEED).model, descent)


def test_a_heap_that_is_the_batch_has_one_perturbation_and_smaller_ones_are_stronger(model, blobs):
    """Sharing restricts the adversary (Mummadi et al., 2019): its loss falls with the size of the heap."""
    images, labels = blobs
    batch, found = Batch(model, images, labels), {}
    for heap in (1, 8, 120):
        rule = SharedTraining(ball=LINF, heap=heap, steps=8, step=0.25, cap=None)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            (_, perturbed), (_, clean) = rule.parts(batch, {})
        assert torch.equal(clean, images)
        v = perturbed - images
        torch.testing.assert_close(v.view(-1, heap, 144).std(1, correction=0), torch.zeros(120 // heap, 144).double())
        assert len(v.flatten(1).mul(1e6).round().unique(dim=0)) == 120 // heap
        found[heap] = batch.loss(perturbed).item()
    assert found[1] > found[8] > found[120] > batch.loss(images).item()


@balls
def test_democratic_training(images, labels, ball):
    """A network of two layers: the features are what the second takes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 5), nn.Linear(5, CLASSES)).double()
    values = [random(5, PIXELS, seed=1), random(5, seed=2), random(CLASSES, 5, seed=3), random(CLASSES, seed=4)]
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.data = value.clone()
    descent = Descent(*values)
    for order, start in orders(lambda: ball.sample((COUNT, 1, 2, 2)).double().flatten(1)):
        x, y, v = images.flatten(1)[order], labels[order], start
        a, c, w, b = descent.weights
        for _ in range(5):
            p = torch.softmax((x + v) @ a.T + c, 1)
            h = -(p * p.log()).sum(1, keepdim=True)
            v = up(ball, v, p * (p.log() + h) @ a, 0.25 * ball.eps)  # the gradient of -H is p (log p + H)
        total = [torch.zeros_like(each) for each in descent.weights]
        for share, seen in ((0.9, x + v), (0.1, x)):
            features = seen @ a.T + c
            e = share * errors(w, b, features, y) / COUNT
            back = e @ w
            for k, gradient in enumerate((back.T @ seen, back.sum(0), e.T @ features, e.sum(0))):
                total[k] = total[k] + gradient
        descent.step(*total)
    found = train(model, images, labels, DemocraticTraining(ball=ball), settings=settings(), seed=SEED).model
    for parameter, expected in zip(found.parameters(), descent.weights, strict=True):
        close(parameter.detach(), expected)
    named = DemocraticTraining(ball=ball, layer="1")
    again = train(model, images, labels, named, settings=settings(), seed=SEED).model
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), found.parameters(), strict=True))


def test_the_entropy_falls(model, blobs):
    images, labels = blobs
    ((_, perturbed), _) = DemocraticTraining(ball=LINF).parts(Batch(model, images, labels), {})
    before, after = (entropy(deep_features(model, x)) for x in (images, perturbed))
    assert (after < before).double().mean() > 0.95


def test_the_entropy_in_nats():
    features = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -math.inf, -1e9]])
    features[2, 2] = -1e9
    expected = torch.tensor([math.log(4), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))])
    torch.testing.assert_close(entropy(features), expected)


def test_deep_features_are_what_the_last_linear_layer_takes(model, blobs):
    images = blobs[0][:3]
    expected = model.network[:5]((images - 0.5) / 0.25)
    torch.testing.assert_close(deep_features(model, images), expected)
    named = deep_features(model, images, "network.1")
    torch.testing.assert_close(named, model.network[:2]((images - 0.5) / 0.25).flatten(1))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


NOTHING = {
    "universal": UniversalTraining(ball=NormBall(math.inf, 0.0)),
    "simultaneous": UniversalTraining(ball=NormBall(2, 0.0), mode="simultaneous"),
    "pool": PoolTraining(pool=torch.full((2, 1, 12, 12), 0.1), probability=0.0),
    "pool of zeros": PoolTraining(pool=torch.zeros(2, 1, 12, 12)),
    "shared": SharedTraining(ball=NormBall(math.inf, 0.0), heap=4, sigma=1.0),
    "shared, no share": SharedTraining(ball=LINF, heap=4, sigma=0.0),
    "democratic": DemocraticTraining(ball=NormBall(math.inf, 0.0), alpha=1.0),
    "democratic, no share": DemocraticTraining(ball=LINF, alpha=0.0),
}


@pytest.mark.parametrize("rule", NOTHING.values(), ids=NOTHING)
def test_without_perturbations_every_rule_is_plain_training(rule, model, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    chosen = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05)
    plain, found = (train(model, images, labels, each, settings=chosen, seed=2) for each in (CleanTraining(), rule))
    for one, other in zip(found.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
    assert [row["loss"] for row in found.history] == pytest.approx([row["loss"] for row in plain.history], abs=1e-14)
    assert not torch.equal(plain.model.network[0].weight, model.network[0].weight)


def test_parts_of_equal_images_add_up_to_one(model, blobs):
    images, labels = blobs[0][:32], blobs[1][:32]
    chosen = TrainingSettings(epochs=2, batch_size=8)
    rule = SharedTraining(ball=NormBall(math.inf, 0.0), heap=4, sigma=0.3)
    plain, found = (train(model, images, labels, each, settings=chosen, seed=2) for each in (CleanTraining(), rule))
    for one, other in zip(found.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("sigma", "passes"), [(0.0, 1), (0.5, 2), (1.0, 1)])
def test_a_part_without_weight_costs_nothing(images, labels, sigma, passes, monkeypatch):
    calls, loss = [], Batch.loss
    monkeypatch.setattr(Batch, "loss", lambda self, seen: calls.append(1) or loss(self, seen))
    model, *_ = linear_network()
    rule = SharedTraining(ball=LINF, heap=2, sigma=sigma)
    train(model, images, labels, rule, settings=settings(epochs=1))
    assert len(calls) == passes


def test_a_network_may_work_in_place(images, labels):
    """What it does to its images reaches neither the rule nor the other parts."""
    plain = nn.Sequential(nn.Threshold(0.5, 0.5), *linear_network()[0])
    in_place = nn.Sequential(nn.Threshold(0.5, 0.5, inplace=True), *linear_network()[0])
    for rule in (SharedTraining(ball=LINF, heap=2), UniversalTraining(ball=LINF), DemocraticTraining(ball=LINF)):
        one, other = (train(each, images, labels, rule, settings=settings()).model for each in (plain, in_place))
        assert torch.equal(one[2].weight, other[2].weight)


@pytest.mark.parametrize("clip", [True, False])
def test_the_network_sees_clipped_sums_unless_told_otherwise(clip, labels):
    images = torch.cat([torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)]).double()
    model, *_ = linear_network()
    pool = torch.tensor([[0.2, -0.2], [0.2, -0.2]]).double().view(1, 1, 2, 2)
    batch, free = Batch(model, images, labels), (images + pool)
    ((_, found),) = PoolTraining(pool=pool, probability=1.0, clip=clip).parts(batch, {})
    torch.testing.assert_close(found, free.clamp(0, 1) if clip else free)
    ((_, found),) = UniversalTraining(ball=LINF, clip=clip).parts(batch, {"delta": pool})
    torch.testing.assert_close(found, free.clamp(0, 1) if clip else free)
    for rule in (SharedTraining(ball=LINF, heap=4, clip=clip), SharedTraining(ball=L2, heap=2, clip=clip)):
        ((_, found), _) = rule.parts(batch, {})
        assert (found.min() < -1e-3 or found.max() > 1.001) != clip


def test_black_pixels_can_become_lighter(labels):
    """At the border of [0, 1] the gradient passes: else what is black in all images would stay as it is."""
    images = torch.zeros(COUNT, 1, 2, 2).double()
    model, w, b = linear_network()
    expected = LINF.eps * pixel_gradients(w, b, images.flatten(1), labels).mean(0).sign()
    for mode in ("alternating", "simultaneous"):
        rule = UniversalTraining(ball=LINF, mode=mode)
        found = train(model, images, labels, rule, settings=settings(epochs=1, learning_rate=0.0))
        close(found.memory["delta"], expected)
    assert (expected > 0).any()
    ((_, seen), _) = SharedTraining(ball=LINF, heap=COUNT, steps=9).parts(Batch(model, images, labels), {})
    assert ((seen[0].flatten() > 0.01) | (expected < 0)).any()


def test_labels_are_smoothed_where_that_is_asked_for(images, labels):
    model, w, b = linear_network()
    smooth = 0.8 * nn.functional.one_hot(labels, CLASSES).double() + 0.2 / CLASSES
    x = images.flatten(1)
    e = (torch.softmax(x @ w.T + b, 1) - smooth) / COUNT
    descent = Descent(w, b)
    descent.step(e.T @ x, e.sum(0))
    chosen = settings(epochs=1, label_smoothing=0.2)
    check_linear(train(model, images, labels, CleanTraining(), settings=chosen).model, descent)


# Bad input


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: UniversalTraining(ball=LINF, mode="alternate"), "mode='alternate' is unknown. .* 'alternating'"),
        (lambda: UniversalTraining(ball=LINF, step=0.0), "step must be positive"),
        (lambda: SharedTraining(ball=LINF, heap=0), "heap must be a whole number of at least 1"),
        (lambda: SharedTraining(ball=LINF, steps=0), "steps must be a whole number of at least 1"),
        (lambda: SharedTraining(ball=LINF, step=-0.5), "step must be positive"),
        (lambda: SharedTraining(ball=LINF, sigma=1.5), r"sigma must lie in \[0, 1\], not 1.5"),
        (lambda: SharedTraining(ball=LINF, sigma=math.nan), "sigma must be a finite number"),
        (lambda: SharedTraining(ball=LINF, cap=0.0), "cap must be positive"),
        (lambda: DemocraticTraining(ball=LINF, alpha=-0.1), r"alpha must lie in \[0, 1\]"),
        (lambda: DemocraticTraining(ball=LINF, steps=0), "steps must be a whole number of at least 1"),
        (lambda: PoolTraining(pool=torch.zeros(1, 1, 2, 2), probability=2.0), r"probability must lie in \[0, 1\]"),
        (lambda: PoolTraining(pool=torch.zeros(1, 2, 2)), "pool must have four dimensions"),
        (lambda: PoolTraining(pool=torch.zeros(0, 1, 2, 2)), "pool is empty"),
    ],
)  # fmt: skip
def test_bad_settings(rule, message):
    with pytest.raises(ValueError, match=message):
        rule()


def test_settings_of_another_kind():
    with pytest.raises(TypeError, match="heap must be a whole number"):
        SharedTraining(ball=LINF, heap=2.5)
    with pytest.raises(TypeError, match="clip must be True or False"):
        UniversalTraining(ball=LINF, clip=1)
    with pytest.raises(TypeError, match="pool must be a torch tensor"):
        PoolTraining(pool=[0.1])


def test_rules_that_do_not_fit(images, labels):
    model, *_ = linear_network()
    with pytest.raises(ValueError, match="heap=3 must divide batch_size=8"):
        train(model, images, labels, SharedTraining(ball=LINF, heap=3), settings=settings())
    with pytest.raises(ValueError, match="heap=16 must divide batch_size=8"):
        train(model, images, labels, SharedTraining(ball=LINF, heap=16), settings=settings())
    with pytest.raises(ValueError, match=r"its perturbations are \(1, 3, 3\), the images \(1, 2, 2\)"):
        train(model, images, labels, PoolTraining(pool=torch.zeros(2, 1, 3, 3)), settings=settings())
    with pytest.raises(ValueError, match="the model has no layer 'fc'"):
        train(model, images, labels, DemocraticTraining(ball=LINF, layer="fc"), settings=settings())
    convolution = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()).double()
    with pytest.raises(ValueError, match="no linear layer; name the module"):
        train(convolution, images, labels, DemocraticTraining(ball=LINF), settings=settings())
    with pytest.raises(TypeError, match="rule must be a rule of uaplib.defences"):
        train(model, images, labels, "universal", settings=settings())
