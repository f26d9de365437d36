import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import uaplib
from uaplib import cli, data, models, perturbation, published, transfer
from uaplib.attacks import METHODS
from uaplib.balls import linf
from uaplib.cli import app, main
from uaplib.experiments import Recipe, images, leaderboard, recipes, store, studies
from uaplib.models.spec import NETWORKS
from uaplib.perturbation import UniversalPerturbation
from uaplib.releases import RELEASES, of_the_matrix

COMMANDS = ["train", "craft", "import", "evaluate", "transfer", "get", "list"]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], terminal_width=200)


def succeed(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def start(*arguments):
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores Ctrl-C
        "from uaplib.cli import main; main()"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def noise(tmp_path):
    path = tmp_path / "noise.safetensors"
    succeed("craft", "noise", "--eps-255", 28, "--seed", 3, "--out", path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command):
    help_text = succeed(command, "--help")
    assert f"Example: uaplib {command}" in " ".join(help_text.replace("`", "").split())


def test_without_a_command_the_commands_are_shown():
    output = invoke().output
    assert all(command in output for command in COMMANDS)


def test_list_models(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output = succeed("list", "models")
    for name in models.names():
        assert name in output
        assert f"{100 * models.card(name)['test_accuracy']:.2f} %" in output


@pytest.mark.parametrize(
    ("name", "says", "measure"),
    [
        ("lite0-camvid", "classes", "mean_iou"), ("unet-camvid", "classes", "mean_iou"),
        ("lite0-scenes", "classes", "mean_iou"), ("unet-scenes", "classes", "mean_iou"),
        ("unet-depth", "depth", "delta_1"),
    ],
)  # fmt: skip
def test_list_models_says_what_dense_networks_say_and_how_well(monkeypatch, name, says, measure):
    monkeypatch.setenv("COLUMNS", "200")
    card = models.card(name)
    rows = [re.split(r"\s*│\s*", line.strip("│ ")) for line in succeed("list", "models").splitlines()]
    (cells,) = (row for row in rows if row[0] == name)
    grade = f"{measure} {100 * card[f'test_{measure}']:.2f} %"
    assert cells == [name, f"{card['parameters']:,}", says, grade, card["command"]]


def test_list_models_names_what_others_have_trained(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (others,) = re.findall("trained by others: (.*)", succeed("list", "models"))
    ours = [name for name, row in NETWORKS.items() if row.source]
    assert others.startswith(", ".join([*ours, "timm:NAME, "]))
    assert {*studies.IMAGENET_MODELS, "midas-small"} <= {*ours}
    assert "every classifier and segmenter of torchvision" in others
    assert "`uaplib list torchvision`" in others


def test_list_torchvision_names_its_classifiers_and_segmenters():
    listed = succeed("list", "torchvision").splitlines()
    assert {"resnet18", "vgg16", "fcn_resnet50"} <= set(listed)
    assert all(models.check_model_name(name) == name for name in listed)
    assert {*models.pretrained_names()} - {*listed} == {name for name, row in NETWORKS.items() if row.source}


def test_the_version():
    assert succeed("--version") == f"uaplib {uaplib.__version__}\n"


def test_list_published():
    lines = succeed("list", "published").splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == list(RELEASES)
    l2 = next(number for number, line in enumerate(lines) if line.startswith("uap-GoogLeNet-sfr-l2"))
    assert lines[l2] == "uap-GoogLeNet-sfr-l2: uap of GoogLeNet, l2 ≤ 2000/255"
    assert lines[l2 + 1].startswith("    read as CWH-BGR-255; known from the defence's code, which turns rows")
    assert lines[0] == "uap-CaffeNet: uap of CaffeNet, l∞ ≤ 10/255"


def test_list_methods_says_what_each_sees_and_costs():
    lines = succeed("list", "methods").splitlines()
    assert lines[::3] == [f"{name}: {row.title}" for name, row in METHODS.items()]
    uap = lines.index("uap: UAP")
    assert lines[uap + 1] == "    sees: predictions; for networks that say: label"
    assert lines[uap + 2].startswith("    cost: DeepFool on every image")


def test_list_data_says_what_each_is_its_licence_and_how_to_get_it(monkeypatch):
    monkeypatch.setenv("UAPLIB_DATA", "/my data")
    lines = succeed("list", "data").splitlines()
    assert [line.split(":")[0] for line in lines[::3]] == list(data.DATA_SETS)
    assert lines[0].startswith("fashion-mnist: Fashion-MNIST")
    assert lines[1] == "    licence: MIT"
    camvid = lines.index("camvid: CamVid")
    assert "CC BY-NC 4.0" in lines[camvid + 1]
    assert lines[camvid + 2].endswith("mkdir -p '/my data/camvid' && cp -r segnet/CamVid/. '/my data/camvid'")


def test_list_data_says_what_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setitem(
        data.DATA_SETS, "fashion-mnist", dataclasses.replace(data.DATA_SETS["fashion-mnist"], system=str(tmp_path))
    )
    for name in ("camvid", "nips2017"):
        (tmp_path / name).mkdir()
    (tmp_path / "nips2017" / "dev_dataset.csv").touch()
    here = [line.split(":")[0] for line in succeed("list", "data").splitlines() if line.endswith(", here")]
    assert here == ["fashion-mnist", "nips2017"]


def test_craft_noise_writes_the_file_and_prints_its_path(tmp_path):
    path = tmp_path / "new" / "v.safetensors"
    assert succeed("craft", "noise", "--eps-l2", 2.5, "--seed", 3, "--out", path).split() == [str(path)]
    found = UniversalPerturbation.load(path)
    assert (found.method, found.seed, str(found.ball)) == ("noise", 3, "l2 ≤ 2.5")


def test_craft_without_out_names_the_file_after_its_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    succeed("craft", "noise", "--eps-255", 8)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == [
        "artifacts/resnet-mini/noise-resnet-mini-linf8-s0.safetensors"
    ]


def test_settings_are_read_as_json_or_text(tmp_path):
    path = tmp_path / "v.safetensors"
    changes = ["--set", "max_iterations=2", "--set", "layers=blocks", "--set", "clip=False", "--set", "check_every=1"]
    succeed("craft", "fff", "--model", "googlenet-mini", "--eps-255", 8, *changes, "--out", path, "--device", "cpu")
    found = UniversalPerturbation.load(path)
    assert (found.parameters["max_iterations"], found.parameters["clip"]) == (2, False)
    assert 0 < len(found.parameters["layers"]) < 10
    assert "threads" in found.run["device"]


def test_craft_uap_and_evaluate_it(clothes, crafting_clothes, tmp_path):
    path = tmp_path / "v.safetensors"
    succeed("craft", "uap", "--model", "vgg16-mini", "--eps-255", 28, "--images", 8, "--passes", 1, "--out", path)
    assert list(tmp_path.iterdir()) == [path]  # no checkpoint is left
    result = json.loads(succeed("evaluate", path, "--images", 100))
    assert result["model"] == "vgg16-mini"
    assert result["fooling_rate"]["n"] == 100
    assert 0 <= result["fooling_rate"]["value"] <= 1
    assert result["clip"] is True
    unclipped = json.loads(succeed("evaluate", path, "--images", 100, "--no-clip"))
    assert unclipped["clip"] is False


def test_evaluate_on_a_named_model(clothes, noise):
    assert json.loads(succeed("evaluate", noise, "--model", "vgg16-mini", "--images", 50))["model"] == "vgg16-mini"


def test_transfer_writes_the_table_and_goes_on_from_its_cells(clothes, noise, tmp_path, monkeypatch):
    out = tmp_path / "new" / "matrix.csv"
    victims = ["--victims", "resnet-mini", "--victims", "vgg-f-mini"]
    sources = ["--sources", noise, "--sources", "noise", "--sources", "chessboard"]
    command = ["transfer", *sources, *victims, "--images", 60, "--out", out]
    shown = succeed(*command)
    assert "resnet-mini" in shown
    table = pd.read_csv(out, keep_default_na=False)
    assert table.source.tolist() == [str(noise), "noise", "chessboard"] * 2
    assert table.victim.tolist() == ["resnet-mini"] * 3 + ["vgg-f-mini"] * 3
    assert (table.n == 60).all()
    expected = json.loads(succeed("evaluate", noise, "--model", "resnet-mini", "--images", 60))
    assert table.fooling_rate[0] == expected["fooling_rate"]["value"]
    cells = out.with_suffix(".jsonl").read_bytes()
    monkeypatch.setattr(transfer.Victim, "measure", lambda *_: pytest.fail("a finished cell was computed again"))
    assert succeed(*command) == shown
    assert out.with_suffix(".jsonl").read_bytes() == cells


def test_transfer_of_a_study_keeps_its_cells_with_the_artifacts(clothes, tmp_path, monkeypatch):
    study = studies.TransferStudy([Recipe("noise", "resnet-mini", linf(24))], ["resnet-mini"])
    monkeypatch.setattr(studies, "transfer_studies", lambda: {"small": study})
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path)
    succeed("transfer", "--study", "small", "--images", 60, "--out", tmp_path / "few" / "small.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]  # a part of the images is not the book's matrix
    few = clothes.images[:60], clothes.labels[:60]
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    succeed("transfer", "--study", "small", "--out", tmp_path / "new" / "small.csv")
    assert len((tmp_path / study.cells).read_text().splitlines()) == 1
    assert pd.read_csv(tmp_path / "new" / "small.csv").source.tolist() == ["noise-resnet-mini-linf24-s0"]


def test_transfer_names_the_releases_of_the_matrix(monkeypatch):
    monkeypatch.setattr(published, "load", lambda name: name)
    assert set(cli._sources(["published"])) == {f"published:{name}" for name in of_the_matrix()}
    assert set(cli._sources(["published:fff-VGG-16"])) == {"published:fff-VGG-16"}


BAD = {
    "no budget": (["craft", "uap"], "give one budget: --eps-255 or --eps-l2"),
    "two budgets": (["craft", "uap", "--eps-255", 8, "--eps-l2", 1], "give one budget"),
    "method": (["craft", "upa", "--eps-255", 8], "method='upa' is unknown. Did you mean 'uap'"),
    "no method": (["craft", "--eps-255", 8], "name one method, or say --all"),
    "a budget of nothing": (["craft", "fff", "--eps-255", 0], "the budget must be more than 0"),
    "a negative budget": (["craft", "uap", "--eps-255", -1], "the budget must be more than 0"),
    "an l2 budget of nothing": (["craft", "uap", "--eps-l2", 0], "the budget must be more than 0"),
    "images of fff": (
        ["craft", "fff", "--eps-255", 8, "--images", 50],
        "--images: fff has no such option, it sees no image",
    ),
    "passes of noise": (
        ["craft", "noise", "--eps-255", 8, "--passes", 5],
        "--passes: noise has no such option, it is of uap",
    ),
    "a rate of gd-uap": (
        ["craft", "gd-uap-data", "--eps-255", 8, "--target-rate", 0.8, "--images", 50],
        "--target-rate: gd-uap-data has no such option, it is of uap",
    ),
    "a setting that is none": (
        ["craft", "gd-uap-none", "--eps-255", 8, "--set", "patince=2"],
        "gd-uap-none: setting='patince' is unknown. Did you mean 'patience'",
    ),
    "a prior of its own": (
        ["craft", "gd-uap-none", "--eps-255", 8, "--set", "prior=data"],
        "setting='prior' is unknown",
    ),
    "half a setting": (["craft", "uap", "--eps-255", 8, "--set", "clip"], "--set takes NAME=VALUE, not 'clip'"),
    "a bad setting": (["craft", "uap", "--eps-255", 8, "--set", "overshoot=-1"], "overshoot at least 0"),
    "a device that is none": (
        ["craft", "noise", "--eps-255", 8, "--device", "gpu"],
        "device='gpu' cannot be used here",
    ),
    "a setting of all": (["craft", "--all", "--set", "clip=true"], "--set: --all takes no other option"),
    "a truth that is none": (
        ["craft", "gd-uap-none", "--eps-255", 8, "--set", "clip=no"],
        "clip must be True or False",
    ),
    "a rate that is none": (
        ["craft", "fff", "--eps-255", 8, "--set", "learning_rate=x"],
        "learning_rate must be a num",
    ),
    "layers that are none": (["craft", "fff", "--eps-255", 8, "--set", "layers=5"], "layers must be one of"),
    "seed of all": (["craft", "--all", "--seed", 0], "--seed: --all takes no other option"),
    "victims of a study": (
        ["transfer", "--study", "imagenet", "--victims", "resnet-mini"],
        "--victims: a study has victims of its own",
    ),
    "cells for a table": (["transfer", "--study", "paper", "--out", "m.jsonl"], "let the table end in .csv"),
    "another layout": (
        ["import", "v.npy", "--layout", "HWC-RGB"],
        "layout='HWC-RGB' is unknown. Did you mean 'HWC-RGB-",
    ),
    "weights elsewhere": (["train", "resnet-mini", "--out", __file__], "resnet-mini.safetensors cannot be written"),
    "model": (
        ["craft", "uap", "--eps-255", 8, "--model", "vgg16-min"],
        "model='vgg16-min' is unknown. Did you mean 'vgg16-mini'",
    ),
    "no file": (["evaluate", "no/such/file"], "there is no perturbation at no/such/file"),
    "not a perturbation": (["evaluate", __file__], "is not a perturbation written by uaplib"),
    "uap on pixels": (
        ["craft", "uap", "--eps-255", 10, "--model", "unet-depth"],
        "method='uap' is for networks that say: label; unet-depth says depth",
    ),
    "less background of clothes": (
        ["craft", "gd-uap-data", "--eps-255", 10, "--variant", "less-background"],
        "role='foreground' is unknown",
    ),
    "transfer nothing": (["transfer"], "name sources and victims, or a study"),
    "transfer both": (["transfer", "--study", "paper", "--sources", "noise"], "name sources and victims, or a study"),
    "transfer study": (["transfer", "--study", "papers"], "study='papers' is unknown. Did you mean 'paper'"),
    "transfer noise alone": (
        ["transfer", "--sources", "noise", "--victims", "resnet-mini"],
        "--sources noise takes size and budget from another source",
    ),
    "transfer victim": (
        ["transfer", "--sources", "noise", "--victims", "resnet-minni"],
        "victims='resnet-minni' is unknown. Did you mean 'resnet-mini'",
    ),
    "transfer release": (
        ["transfer", "--sources", "published:uap-VGG16", "--victims", "resnet-mini"],
        "name='uap-VGG16' is unknown. Did you mean 'uap-VGG-16'",
    ),
    "train nothing": (["train"], "name one network, or say --all"),
    "train both": (["train", "resnet-mini", "--all"], "name one network, or say --all"),
    "train unknown": (["train", "resnet"], "name='resnet' is unknown. Did you mean 'resnet-mini'"),
    "list": (["list", "model"], "what='model' is unknown. Did you mean 'models'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_a_clear_error(case):
    arguments, message = BAD[case]
    result = invoke(*arguments)
    assert isinstance(result.exception, ValueError | TypeError | OSError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    "command",
    ["evaluate", "crafd", "train --epochs 0", "craft fff --eps-255 300", "craft fff --eps-255 100000",
     "craft uap --eps-255 x", "craft uap --eps-255 8 --images 0", "craft uap --eps-255 8 --target-rate 2"],
)  # fmt: skip
def test_what_the_command_line_itself_refuses_has_exit_code_2(command):
    assert invoke(*command.split()).exit_code == 2


def test_a_budget_that_is_no_number_is_refused():
    result = invoke("craft", "noise", "--eps-255", "nan")  # by the command line's library or, in some versions, by ours
    assert result.exit_code == 2 or "the budget must be more than 0" in str(result.exception)


def test_noise_has_no_model_of_its_own_to_be_evaluated_on(noise):
    result = invoke("evaluate", noise)
    assert isinstance(result.exception, ValueError)
    assert "was not crafted on a network; name one with --model" in str(result.exception)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_exit_code_2_and_one_line(case, monkeypatch, capsys):
    arguments, message = BAD[case]
    monkeypatch.setattr(sys, "argv", ["uaplib", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("uaplib: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_process_ends_with_exit_code_2_and_without_a_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    process = start("craft", "noise", "--eps-255", 8, "--out", tmp_path / "file" / "v")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert errors.startswith(b"uaplib: ")
    assert b"Traceback" not in errors


def test_missing_data_ends_with_exit_code_2_and_the_remedy(tmp_path, noise, no_data):
    result = invoke("evaluate", noise, "--model", "vgg16-mini")
    assert isinstance(result.exception, FileNotFoundError)
    assert "install Debian's package dataset-fashion-mnist" in str(result.exception)


def test_ctrl_c_keeps_the_work_and_the_same_command_goes_on(clothes, crafting_clothes, tmp_path):
    path = tmp_path / "v.safetensors"
    recipe = "--model vgg16-mini --eps-255 4 --images 20 --passes 2"
    command = ["craft", "uap", *recipe.split(), "--out", path]
    running, seen = start(*command), b""
    try:
        while running.poll() is None and not re.search(rb" [1-9]\d*/40 ", seen):
            seen += os.read(running.stderr.fileno(), 1000)
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == 130
    assert b"interrupted; the same command goes on from here" in rest
    assert b"Traceback" not in seen + rest
    checkpoint = tmp_path / "v.safetensors.part"
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name]
    with safe_open(checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["rest"]["position"] > 0
    succeed(*command)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def raised(*arguments):
    """The text of the error that a command ends with."""
    result = invoke(*arguments)
    assert isinstance(result.exception, ValueError | OSError), result.output
    return str(result.exception)


def photo(path):
    path.write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    return path


@pytest.mark.parametrize("name", ["photo.jpg", "notes.txt", "v.safetensors"])
def test_craft_replaces_no_file_of_another_kind(tmp_path, name):
    path = photo(tmp_path / name)
    before = path.read_bytes()
    message = raised("craft", "noise", "--eps-255", 8, "--out", path)
    assert message == f"{path} is there already, and is no perturbation of uaplib; name another file"
    assert path.read_bytes() == before


def test_craft_replaces_no_other_perturbation_and_finds_its_own(noise):
    before = noise.read_bytes(), noise.stat().st_mtime_ns
    assert "is another perturbation" in raised("craft", "noise", "--eps-255", 28, "--seed", 4, "--out", noise)
    assert "is another perturbation" in raised("craft", "fff", "--eps-255", 28, "--seed", 3, "--out", noise)
    assert succeed("craft", "noise", "--eps-255", 28, "--seed", 3, "--out", noise).split() == [str(noise)]
    assert (noise.read_bytes(), noise.stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", ["photo.jpg", "table.csv", "noise.safetensors"])
def test_transfer_replaces_no_file_of_another_kind_and_no_source(tmp_path, noise, name):
    path = tmp_path / name
    if not path.exists():
        photo(path)
    before = path.read_bytes()
    message = raised("transfer", "--sources", noise, "--victims", "resnet-mini", "--out", path)
    expected = "is one of the sources" if name == noise.name else "is no table of `uaplib transfer`"
    assert expected in message
    assert path.read_bytes() == before
    assert not path.with_suffix(".jsonl").exists()


def test_transfer_leaves_a_file_of_another_kind_in_the_place_of_its_cells(clothes, tmp_path, noise):
    (tmp_path / "m.jsonl").write_text("a note without an end")
    message = raised(
        "transfer", "--sources", noise, "--victims", "resnet-mini", "--images", 5, "--out", tmp_path / "m.csv"
    )
    assert "m.jsonl holds something else than records of uaplib" in message
    assert (tmp_path / "m.jsonl").read_text() == "a note without an end"


@pytest.mark.parametrize("out", ["", ".", "folder", "file/v", "n" * 300])
@pytest.mark.parametrize("command", ["craft", "transfer"])
def test_an_output_that_cannot_be_written_is_found_out_before_the_work_begins(
    tmp_path, monkeypatch, noise, out, command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Recipe, "craft", lambda *_: pytest.fail("the work has begun"))
    monkeypatch.setattr(images, "_load", lambda *_, **__: pytest.fail("the work has begun"))
    arguments = {"craft": ["uap", "--eps-255", 8], "transfer": ["--sources", noise, "--victims", "resnet-mini"]}[
        command
    ]
    assert "cannot be written" in raised(command, *arguments, "--out", out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", noise.name]


@pytest.mark.parametrize(
    ("layout", "change"),
    [("CHW-RGB-1", lambda v: v / 255), ("HWC-BGR-255", lambda v: v[::-1].transpose(1, 2, 0)),
     ("WHC-RGB-255", lambda v: v.transpose(2, 1, 0)[None])],
)  # fmt: skip
def test_a_perturbation_of_someone_elses_is_brought_in(tmp_path, layout, change):
    values = np.random.default_rng(0).choice([-10.0, 10.0], (3, 4, 5)).astype(np.float32)
    np.save(tmp_path / "v.npy", change(values))
    assert "bring it in by `uaplib import" in raised("evaluate", tmp_path / "v.npy", "--model", "resnet-mini")
    printed = succeed("import", tmp_path / "v.npy", "--layout", layout, "--source", "theirs")
    assert printed.split() == [str(tmp_path / "v.safetensors")]
    found = UniversalPerturbation.load(tmp_path / "v.safetensors")
    assert np.allclose(found.delta[0].numpy() * 255, values)
    assert (found.method, found.source, str(found.ball)) == ("imported", "theirs", "l∞ ≤ 10/255")
    assert "is there already" in raised("import", tmp_path / "v.npy", "--layout", layout)


def test_without_a_layout_the_possible_ones_are_listed_and_nothing_is_written(tmp_path):
    np.save(tmp_path / "v.npy", np.full((4, 5, 3), 10.0))
    lines = succeed("import", tmp_path / "v.npy").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["HWC-RGB-255", "HWC-BGR-255", "WHC-RGB-255", "WHC-BGR-255"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]
    assert "--out: without a layout nothing is read" in raised("import", tmp_path / "v.npy", "--out", tmp_path / "m")


def test_how_values_were_coded_reaches_what_is_brought_in(tmp_path):
    np.save(tmp_path / "v.npy", np.full((3, 4, 5), 3.0))
    coded = ["--layout", "CHW-RGB-std", "--std", 0.1, 0.2, 0.4, "--zero", 1, "--scale", 0.5]
    succeed("import", tmp_path / "v.npy", *coded, "--eps-l2", 3, "--out", tmp_path / "m.safetensors")
    found = UniversalPerturbation.load(tmp_path / "m.safetensors")
    assert found.delta[0, :, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert str(found.ball) == "l2 ≤ 3"
    both = ["--eps-255", 10, "--eps-l2", 3, "--out", tmp_path / "n.safetensors"]
    assert "--eps-255: give one budget" in raised("import", tmp_path / "v.npy", *coded, *both)


@pytest.mark.parametrize("ending", [".npy", ".pt", ".h5", ".mat"])
@pytest.mark.parametrize("command", ["evaluate", "transfer"])
def test_a_foreign_file_says_what_it_is_and_how_to_bring_it_in(tmp_path, ending, command):
    path = tmp_path / f"v{ending}"
    path.write_bytes(b"garbage" * 10)
    arguments = {"evaluate": [path, "--model", "resnet-mini"],
                 "transfer": ["--sources", path, "--victims", "resnet-mini", "--out", tmp_path / "m.csv"]}  # fmt: skip
    message = raised(command, *arguments[command])
    assert f"bring it in by `uaplib import {path}`" in message
    assert "header" not in message


@pytest.mark.parametrize(("options", "mode"), [([], "tiled"), (["--fit", "resized"], "bilinear")])
def test_evaluate_fits_as_transfer_does_and_says_so(clothes, tmp_path, options, mode):
    path = tmp_path / "v.safetensors"
    perturbation.noise(linf(28), (1, 20, 20)).save(path)
    common = ["--images", 40, *options]
    found = json.loads(succeed("evaluate", path, "--model", "resnet-mini", *common))
    assert found["resized"] == {"from": [20, 20], "to": [28, 28], "mode": mode}
    succeed("transfer", "--sources", path, "--victims", "resnet-mini", *common, "--out", tmp_path / "m.csv")
    table = pd.read_csv(tmp_path / "m.csv")
    assert table.fooling_rate[0] == found["fooling_rate"]["value"]
    assert table.resized[0] == f"20x20, {mode}"
    assert "fit='tile' is unknown" in raised("evaluate", path, "--model", "resnet-mini", "--fit", "tile")


def test_evaluate_refuses_other_channels_before_the_clean_pass(clothes, tmp_path, monkeypatch):
    perturbation.noise(linf(28), (3, 28, 28)).save(tmp_path / "v")
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the network was loaded"))
    message = raised("evaluate", tmp_path / "v", "--model", "resnet-mini")
    assert "of 3 channels (crafted on nothing) does not fit images of 1" in message


def test_evaluate_says_what_it_measures_on(clothes, noise):
    result = invoke("evaluate", noise, "--model", "resnet-mini", "--images", 40)
    assert json.loads(result.stdout)["images_from"] == "Fashion-MNIST, test split"
    assert "measuring on 40 images from: Fashion-MNIST, test split" in result.stderr


def test_one_victim_that_does_not_fit_leaves_a_table_of_the_others(clothes, noise, tmp_path):
    out = tmp_path / "m.csv"
    victims = ["--victims", "resnet-mini", "--victims", "unet-depth", "--victims", "vgg-f-mini"]
    with pytest.warns(UserWarning, match="unet-depth is left out: "):
        result = invoke("transfer", "--sources", noise, *victims, "--images", 10, "--out", out)
    assert result.exit_code == 2
    assert pd.read_csv(out).victim.tolist() == ["resnet-mini", "vgg-f-mini"]
    assert "n: resnet-mini 10, vgg-f-mini 10" in result.stdout


def test_training_writes_into_a_folder_of_the_users(checkout, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("uaplib.train.train", lambda name, folder, **_: seen.append((name, folder)) or {})
    monkeypatch.chdir(tmp_path)
    succeed("train", "resnet-mini")
    succeed("train", "resnet-mini", "--out", "mine")
    succeed("train", "vgg-f-mini", "--package")
    weights = models.weights_file("vgg-f-mini").parent
    assert [(n, str(f)) for n, f in seen] == [
        ("resnet-mini", "weights"),
        ("resnet-mini", "mine"),
        ("vgg-f-mini", str(weights)),
    ]
    monkeypatch.setattr(cli, "checkout", lambda: None)
    assert "--package replaces the weights of the book, and this is no checkout" in raised(
        "train", "vgg-f-mini", "--package"
    )


def test_an_installed_package_crafts_all_into_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "ARTIFACTS", None)
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(tmp_path / "none"))
    noise = Recipe("noise", "resnet-mini", linf(24))
    controls = studies.TransferStudy([noise], ["resnet-mini"], (), [noise])
    sizes = studies.TransferStudy([], ["resnet-mini"], (), [noise], {"tiled": lambda one: one.tiled(28, 28)})
    monkeypatch.setattr(studies, "book", lambda: [noise])
    monkeypatch.setattr(studies, "kept_studies", lambda: [controls, sizes])
    few = torch.rand(3, 1, 28, 28), torch.arange(3)
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    images.at_hand.cache_clear()
    succeed("craft", "--all")
    with monkeypatch.context() as patch:
        patch.setattr(studies.TransferStudy, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert invoke("craft", "--all").exit_code == 130
    images.at_hand.cache_clear()  # later tests are to see the real images
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file == tmp_path / "artifacts" / "cells" / "fashion-mnist.jsonl"
    measured = [cell["source"] for cell in map(json.loads, file.read_text().splitlines())]
    assert measured == controls.rows + sizes.rows


FAULTS = {
    "a missing package": (ImportError("the package timm is not installed: pip install timm"), "pip install timm"),
    "a full disk": (OSError(28, "No space left on device", "/x/v"), "/x/v: No space left on device"),
    "no gradient": (FloatingPointError("the gradient is not finite in iteration 1"), "iteration 1"),
    "of the device": (RuntimeError("CUDA error: device lost\nCompile with DSA\nand more\n\nand more"), "device lost"),
    "without words": (ValueError(), "ValueError"),
    "a novel": (ValueError("word " * 1000), "word word"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_error_is_at_most_two_short_lines_and_exit_code_2(fault, monkeypatch, capsys):
    error, words = FAULTS[fault]

    def fail(*arguments):
        raise error

    monkeypatch.setattr(models, "card", fail)
    monkeypatch.setattr(sys, "argv", ["uaplib", "list", "models"])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert words in shown
    assert shown.count("\n") <= 2
    assert max(map(len, shown.splitlines())) < 450


@pytest.mark.parametrize("command", ["evaluate", "crafd", "craft --epz 8", "craft uap --eps-255 x", "train --epochs 0"])
def test_what_typer_refuses_is_said_in_two_lines_too(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["uaplib", *command.split()])
    with pytest.raises(SystemExit) as end:
        main()
    said, where = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert said.startswith("uaplib: ")
    assert where.startswith("Try: uaplib")


def test_a_warning_is_one_line_of_the_command(monkeypatch, capsys):
    monkeypatch.setattr(models, "card", lambda name: warnings.warn("something to know", stacklevel=1) or {}["stop"])
    monkeypatch.setattr(sys, "argv", ["uaplib", "list", "models"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    warnings.simplefilter("always")  # pytest forgets it after the test
    with pytest.raises(KeyError):
        main()
    assert "uaplib: something to know\n" in capsys.readouterr().err


def test_what_is_out_of_date_stays_until_something_is_in_its_place(monkeypatch, tmp_path, noise):
    recipe = Recipe("fff", "vgg-f-mini", linf(24))
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(studies, "book", lambda: [recipe])
    monkeypatch.setattr(studies, "kept_studies", list)
    path = tmp_path / recipe.place
    path.parent.mkdir()
    noise.rename(path)
    before = path.read_bytes()
    monkeypatch.setattr(Recipe, "craft", lambda *_: (_ for _ in ()).throw(FileNotFoundError("no data")))
    with pytest.warns(UserWarning, match="is not used"):
        assert raised("craft", "--all") == "no data"
    assert path.read_bytes() == before


@pytest.mark.parametrize("stop", ["keep_measured", "keep_record"])
def test_an_ablation_that_was_interrupted_at_its_end_is_finished_by_the_next_run(monkeypatch, tmp_path, stop):
    short = {"max_iterations": 2, "check_every": 1, "batch_size": 1}
    row = dataclasses.replace(METHODS["gd-uap-none"], book=short)
    monkeypatch.setattr(recipes, "METHODS", {**METHODS, row.name: row})
    few = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    images.at_hand.cache_clear()
    recipe = recipes.ablation("gd-uap-none", "vgg-f-mini", linf(24), "convolutions")
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(studies, "book", lambda: [recipe])
    monkeypatch.setattr(studies, "kept_studies", list)
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, stop, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert invoke("craft", "--all").exit_code != 0
    assert (tmp_path / recipe.place).exists()
    for _ in range(2):
        succeed("craft", "--all")
        kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        assert kept == ["cells/fashion-mnist.jsonl", recipe.place.replace(".safetensors", ".json")]
        assert len((tmp_path / "cells" / "fashion-mnist.jsonl").read_text().splitlines()) == 1
    (tmp_path / "cells" / "fashion-mnist.jsonl").unlink()
    succeed("craft", "--all")  # of the record alone nothing can be measured: it is crafted again
    assert recipe.find_measured() is not None
    images.at_hand.cache_clear()


def test_of_what_is_dropped_the_rows_of_matrices_are_measured_first(monkeypatch, tmp_path, clothes):
    """And where a network is missing nothing is dropped."""
    few = clothes.images[:20], clothes.labels[:20]
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    images.at_hand.cache_clear()
    short = {"max_iterations": 2, "check_every": 1, "batch_size": 1}
    row = dataclasses.replace(METHODS["gd-uap-none"], book=short)
    monkeypatch.setattr(recipes, "METHODS", {**METHODS, row.name: row})
    recipe = Recipe("gd-uap-none", "vgg-f-mini", linf(24))
    study = studies.TransferStudy([recipe], ["vgg-f-mini", "resnet-mini"])
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(studies, "book", lambda: [recipe])
    monkeypatch.setattr(studies, "kept_studies", lambda: [study])
    monkeypatch.setattr(studies, "keeps", lambda recipe: False)
    load = models.load
    with monkeypatch.context() as patch:
        lacks = FileNotFoundError("no weights")
        patch.setattr(models, "load", lambda name, *rest: load(name, *rest) if name != "resnet-mini" else throw(lacks))
        with pytest.warns(UserWarning, match="resnet-mini is left out"):
            succeed("craft", "--all")
    assert (tmp_path / recipe.place).exists()
    succeed("craft", "--all")
    assert not (tmp_path / recipe.place).exists()
    assert study.kept().table.n.tolist() == [20, 20]
    images.at_hand.cache_clear()


def test_the_leaderboard_is_printed_and_says_what_a_submission_leaves_behind(monkeypatch, tmp_path):
    def entry(name, counts):
        fooled = {victim: np.arange(10) < count for victim, count in counts.items()}
        about = {"method": name, "title": name, "group": "without data", "crafted_on": "x", "sees": "nothing"}
        about |= {"gradients": None, "seed": None, "made": ""}
        return leaderboard.Entry(name, fooled=fooled, seen=frozenset({"x"}), **about)

    rows = [entry("strong", {"x": 9, "y": 8}), entry("mine", {"x": 7, "y": 6}), entry("weak", {"x": 5, "y": 1})]
    monkeypatch.setattr(leaderboard, "entries", lambda: rows)
    shown = succeed("leaderboard")
    assert shown.index("strong") < shown.index("mine") < shown.index("weak")
    monkeypatch.setattr(leaderboard, "submit", lambda file, name, sees, device: rows[1])
    said = succeed("leaderboard", "--submit", tmp_path / "v.safetensors", "--name", "mine", "--sees", "nothing")
    assert "leaves 1 of 2 others behind" in said
    assert "x: 70.0 %" in said
    assert "y: 60.0 %" in said
    assert "submissions/mine.safetensors" in said
    assert "needs a --name" in raised("leaderboard", "--submit", tmp_path / "v.safetensors")
    assert "give a perturbation by --submit" in raised("leaderboard", "--name", "mine")


def throw(error):
    raise error


def test_noise_of_another_size_is_another_perturbation(noise):
    other = raised("craft", "noise", "--model", "unet-depth", "--eps-255", 28, "--seed", 3, "--out", noise)
    assert "is another perturbation" in other


def test_noise_leaves_the_checkpoint_of_another_run(tmp_path):
    (tmp_path / "v.part").write_text("another's")
    succeed("craft", "noise", "--eps-255", 28, "--out", tmp_path / "v")
    assert (tmp_path / "v.part").read_text() == "another's"


def test_evaluate_says_when_the_network_has_other_weights_now(clothes, tmp_path, monkeypatch):
    found = perturbation.noise(linf(28), (1, 28, 28))
    found.source, found.source_sha256 = "resnet-mini", "0" * 64
    found.save(tmp_path / "v")
    said = invoke("evaluate", tmp_path / "v", "--images", 20).stderr
    assert "resnet-mini has other weights than the network that" in said


def test_training_replaces_no_weights_and_says_when_it_is_interrupted(monkeypatch, tmp_path):
    (tmp_path / "resnet-mini.safetensors").write_text("mine")
    assert "is there already; name another folder" in raised("train", "resnet-mini", "--out", tmp_path)
    monkeypatch.setattr("uaplib.train.train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    result = invoke("train", "vgg-f-mini", "--out", tmp_path)
    assert result.exit_code == 130
    assert "interrupted; nothing of vgg-f-mini is kept" in result.stderr
