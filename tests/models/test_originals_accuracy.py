"""The networks that are read from their authors' files say what they should, and have the right gradients."""

import csv
import itertools
import re
from importlib import resources

import pytest
import torch

from tests.conftest import or_skip
from tests.models.test_originals import load
from uaplib import features, metrics, models, provenance
from uaplib.data import nips2017, pictures
from uaplib.models.spec import ORIGINALS

SETS = {"imagenet-samples": pictures.all_samples, "nips2017": nips2017.pictures}
every = pytest.mark.parametrize("name", ORIGINALS)
# Top-1 of all 1,000 in per cent, of the samples' smaller copies and of NIPS 2017's published images, as another reading
# of the same files gave it.
KNOWN = {
    "googlenet-caffe": (73.7, 65.0),
    "squeezenet1_1-caffe": (61.7, 51.2),
    "tiny-darknet": (65.2, 67.9),
    "mobilenet-v1": (86.2, 81.3),
    "mobilenet-v1-0.75": (79.0, 76.3),
    "mobilenet-v1-0.5": (66.6, 65.2),
    "mobilenet-v1-0.25": (44.5, 42.2),
    "mobilenet-v2": (87.5, 82.4),
}


def table():
    text = (resources.files("uaplib") / "tables" / "network-accuracy.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def top1(name, of, files):
    """Top-1 of all 1,000 in per cent."""
    key = {"network": name, "set": of, "files": files, "n": "1000"}
    (found,) = (float(row["top1"]) for row in table() if key.items() <= row.items())
    return found


@every
def test_the_table_agrees_with_another_reading_of_the_files(name):
    samples, nips = KNOWN[name]
    assert top1(name, "imagenet-samples", "copies") == pytest.approx(samples, abs=0.3)
    assert top1(name, "nips2017", "published") == pytest.approx(nips, abs=0.3)
    assert top1(name, "nips2017", "copies") == pytest.approx(nips, abs=1)


def test_the_table_has_every_network_and_nothing_else():
    rows = [(row["network"], row["set"], row["files"], row["n"]) for row in table()]
    assert sorted(rows) == sorted(itertools.product(ORIGINALS, SETS, ("published", "copies"), ("1000", "50")))
    assert len({(row["set"], row["sha256"]) for row in table()}) == 8  # the same pictures for every network


@every
def test_the_front_page_says_what_the_table_says(checkout, name):
    page = (checkout / "README.md").read_text(encoding="utf-8")
    samples, nips = (top1(name, of, "published") for of in SETS)
    row = models.find(name)
    assert re.search(rf"\| `{name}` \| .* \| {row.resize} → {row.size} \| {samples} \| {nips} \|", page)


@every
def test_the_digest_of_the_weights_is_on_record(name):
    assert models.find(name).weights_sha256 == provenance.weights_sha256(load(name))


@every
@pytest.mark.parametrize("of", SETS)
def test_fifty_pictures_are_recognised_as_the_table_says(name, of):
    model, found = load(name), or_skip(SETS[of])[::20]
    known = [row for row in table() if row["network"] == name and row["sha256"] == found.sha256()[:16]]
    if not known:
        pytest.skip(f"the pictures of {of} are neither the published ones nor the copies that were measured")
    images, labels = found.load(models.preprocessing(name))
    right = metrics.accuracy(metrics.predict(model, images, batch_size=10), labels).value
    assert 100 * right == pytest.approx(float(known[0]["top1"]), abs=2)  # another decoder may tip one of them


@every
def test_gradients_are_those_of_finite_differences(name):
    model, generator = load(name).double(), torch.Generator().manual_seed(3)
    image = torch.rand(1, 3, 64, 64, generator=generator, dtype=torch.float64).requires_grad_()
    direction = torch.randn(1000, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((model(image) @ direction).sum(), image)
    step = 1e-6
    with torch.no_grad():
        for place in [(0, 0, 20, 30), (0, 1, 31, 32), (0, 2, 45, 17), (0, 0, 63, 63)]:
            change = torch.zeros_like(image)
            change[place] = step
            difference = ((model(image + change) - model(image - change)) @ direction).item() / (2 * step)
            assert gradient[place].item() == pytest.approx(difference, rel=1e-4, abs=1e-5)


KINDS = {"tiny-darknet": [kind for kind in features.KINDS if kind != "blocks"]}  # the others all have blocks


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_structure_without_the_files_has_the_layers_of_the_network(name, no_data):
    structure = models.structure(name)
    chosen = features.choose(structure, structure.mean_image(), features.default_kind(structure))
    with pytest.raises(FileNotFoundError):
        models.load(name)
    assert not structure.training
    kinds = {type(structure.get_submodule(layer.name)).__name__ for layer in chosen}
    assert kinds <= {"Inception", "Fire", "SeparableBlock", "InvertedResidual", "LeakyReLU", "Conv2d"}
    assert len(chosen) > 7


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_structure_fires_as_the_loaded_network_does(name):
    loaded, structure = load(name), models.structure(name)
    for kind in KINDS.get(name, features.KINDS):
        assert features.choose(loaded, loaded.mean_image(), kind) == features.choose(
            structure, structure.mean_image(), kind
        )
    assert models.structure("resnet-mini").state_dict().keys() == models.load("resnet-mini").state_dict().keys()
