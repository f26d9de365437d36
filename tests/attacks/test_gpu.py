"""On a real GPU: attacks and measures give what they give on the CPU, in double precision but for the last digits."""

import pytest
import torch

from tests.attacks.test_contract import SHORT, crafted, every, interrupted, settings_of
from uaplib import attacks, metrics, models
from uaplib.attacks import METHODS
from uaplib.balls import linf
from uaplib.devices import device_name
from uaplib.transfer import transfer_matrix

CLOSE = 1e-6  # a step of an attack, rounded anew in each of its few iterations


@pytest.fixture(scope="module")
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that computes in double precision")
    return torch.device("cuda")


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")


@pytest.fixture(scope="module")
def networks(gpu):
    """One network on the CPU and on the GPU."""
    return {device: models.load("vgg-f-mini", device).double() for device in ("cpu", gpu)}


def craft(name, network, images, **options):
    row = METHODS[name]
    seen = {} if row.sees == "nothing" else {"images": images.to(next(network.parameters()).device)}
    short = SHORT | {"training_mode": False}  # dropout draws other numbers on every device
    return row.craft(network, linf(24), settings_of(name, linf(24), short), seen, seed=3, source="v", **options)


@every
def test_it_is_crafted_there_as_here(name, gpu, networks, images):
    here, there = (craft(name, network, images) for network in networks.values())
    assert there.delta.device.type == "cuda"
    torch.testing.assert_close(there.delta.cpu(), here.delta, rtol=0, atol=CLOSE)
    assert there.key == here.key
    if name != "noise":
        assert there.run["device"] == device_name(gpu) != here.run["device"]


@crafted
@pytest.mark.parametrize("back", [False, True], ids=["onto the GPU", "onto the CPU"])
def test_a_checkpoint_moves(name, back, networks, images, tmp_path, monkeypatch):
    expected = craft(name, networks["cpu"], images)
    before, after = reversed(networks.values()) if back else networks.values()
    with interrupted(monkeypatch, 2), pytest.raises(KeyboardInterrupt):
        craft(name, before, images, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").is_file()
    resumed = craft(name, after, images, checkpoint=tmp_path / "c")
    assert resumed.delta.device.type == next(after.parameters()).device.type
    torch.testing.assert_close(resumed.delta.cpu(), expected.delta, rtol=0, atol=CLOSE)
    assert len(resumed.history) == len(expected.history)


@pytest.mark.parametrize("attack", ["fgsm", "deepfool"])
def test_one_image_at_a_time(attack, gpu, networks, images):
    def perturb(network, images):
        return (
            attacks.fgsm(network, images, 0.05) if attack == "fgsm" else attacks.deepfool(network, images).perturbations
        )

    there = perturb(networks[gpu], images.to(gpu))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), perturb(networks["cpu"], images), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["resnet-mini", "unet-scenes", "unet-depth"])
def test_networks_say_there_what_they_say_here(name, gpu):
    images = torch.rand(3, *models.load(name).mean_image().shape[1:], dtype=torch.float64)
    here, there = (metrics.predict(models.load(name, device).double(), images.to(device)) for device in ("cpu", gpu))
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here)


def test_a_cell_measured_there_is_the_one_measured_here(gpu, images):
    sources = {name: craft(name, models.load("vgg-f-mini"), images.float()) for name in ("noise", "fff")}
    test = images.float(), torch.arange(12) % 10
    here, there = (transfer_matrix(sources, ["resnet-mini"], test, device=device) for device in ("cpu", gpu))
    assert there.table.equals(here.table)
    assert all((there.fooled[pair] == here.fooled[pair]).all() for pair in here.fooled)
