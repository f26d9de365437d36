import json
import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

import uaplib
from uaplib import cli, models, published, recipes, transfer
from uaplib.catalogue import EFFICIENTNET_LITE, MIDAS
from uaplib.cli import app, main
from uaplib.perturbation import UniversalPerturbation
from uaplib.published import RELEASES
from uaplib.recipes import METHODS, Recipe, TransferStudy, linf

COMMANDS = ["train", "craft", "evaluate", "transfer", "list"]


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
    assert others.startswith("efficientnet-lite0, efficientnet-lite1, efficientnet-lite2, midas-small, timm:NAME, ")
    assert "every classifier and segmenter of torchvision" in others
    assert "`uaplib list torchvision`" in others


def test_list_torchvision_names_its_classifiers_and_segmenters():
    listed = succeed("list", "torchvision").splitlines()
    assert {"resnet18", "vgg16", "fcn_resnet50"} <= set(listed)
    assert all(models.check_model_name(name) == name for name in listed)
    assert {*models.pretrained_names()} - {*listed} == {*EFFICIENTNET_LITE, MIDAS}


def test_the_version():
    assert succeed("--version") == f"uaplib {uaplib.__version__}\n"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("data", "fashion-mnist\nimagenet-samples\ncamvid\nscenes\ndepth-folders\n"),
        ("methods", "\n".join([*METHODS, ""])),
        ("published", "\n".join([*RELEASES, ""])),
    ],
)
def test_list_the_rest(what, expected):
    assert succeed("list", what) == expected


def test_craft_noise_writes_the_file_and_prints_its_path(tmp_path):
    path = tmp_path / "new" / "v.safetensors"
    assert succeed("craft", "noise", "--eps-l2", 2.5, "--seed", 3, "--out", path).split() == [str(path)]
    found = UniversalPerturbation.load(path)
    assert (found.method, found.seed, str(found.ball)) == ("noise", 3, "l2 ≤ 2.5")


def test_craft_without_out_names_the_file_after_its_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    succeed("craft", "noise", "--eps-255", 8)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == [
        "artifacts/noise-resnet-mini-linf8-s0.safetensors"
    ]


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
    command = ["transfer", "--sources", noise, "--sources", "noise", *victims, "--images", 60, "--out", out]
    shown = succeed(*command)
    assert "resnet-mini" in shown
    table = pd.read_csv(out, keep_default_na=False)
    assert table.source.tolist() == [str(noise), "noise"] * 2
    assert table.victim.tolist() == ["resnet-mini"] * 2 + ["vgg-f-mini"] * 2
    assert (table.n == 60).all()
    expected = json.loads(succeed("evaluate", noise, "--model", "resnet-mini", "--images", 60))
    assert table.fooling_rate[0] == expected["fooling_rate"]["value"]
    cells = out.with_suffix(".jsonl").read_bytes()
    monkeypatch.setattr(transfer._Victim, "measure", lambda *_: pytest.fail("a finished cell was computed again"))
    assert succeed(*command) == shown
    assert out.with_suffix(".jsonl").read_bytes() == cells


def test_transfer_of_a_study_keeps_its_cells_with_the_artifacts(clothes, tmp_path, monkeypatch):
    study = TransferStudy([Recipe("noise", "resnet-mini", linf(24))], ["resnet-mini"])
    monkeypatch.setattr(recipes, "transfer_studies", lambda: {"small": study})
    monkeypatch.setattr(recipes, "ARTIFACTS", tmp_path)
    succeed("transfer", "--study", "small", "--images", 60, "--out", tmp_path / "new" / "small.csv")
    assert len((tmp_path / "transfer-small.jsonl").read_text().splitlines()) == 1
    assert pd.read_csv(tmp_path / "new" / "small.csv").source.tolist() == ["noise-resnet-mini-linf24-s0"]


def test_transfer_names_all_releases(monkeypatch):
    monkeypatch.setattr(published, "load", lambda name: name)
    assert set(cli._sources(["published"])) == {f"published:{name}" for name in RELEASES}
    assert set(cli._sources(["published:fff-VGG-16"])) == {"published:fff-VGG-16"}


BAD = {
    "no budget": (["craft", "uap"], "give one budget: --eps-255 or --eps-l2"),
    "two budgets": (["craft", "uap", "--eps-255", 8, "--eps-l2", 1], "give one budget"),
    "method": (["craft", "upa", "--eps-255", 8], "method='upa' is unknown. Did you mean 'uap'"),
    "no method": (["craft", "--eps-255", 8], "name one method, or say --all"),
    "model": (
        ["craft", "uap", "--eps-255", 8, "--model", "vgg16-min"],
        "model='vgg16-min' is unknown. Did you mean 'vgg16-mini'",
    ),
    "no file": (["evaluate", "no/such/file"], "there is no perturbation at no/such/file"),
    "not a perturbation": (["evaluate", __file__], "is not a perturbation written by uaplib"),
    "uap on pixels": (
        ["craft", "uap", "--eps-255", 10, "--model", "unet-depth"],
        "method='uap' crosses borders between classes of images; unet-depth has none",
    ),
    "less background of depth": (
        ["craft", "gd-uap-data", "--eps-255", 10, "--model", "unet-depth", "--variant", "less-background"],
        "variant='less-background' needs a segmenter of the project",
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
    assert isinstance(result.exception, ValueError | OSError)
    assert message in str(result.exception)


@pytest.mark.parametrize(
    "command",
    ["evaluate", "crafd", "train --epochs 0", "craft uap --eps-255 -1", "craft noise --eps-255 nan",
     "craft uap --eps-255 x", "craft uap --eps-255 8 --images 0", "craft uap --eps-255 8 --target-rate 2"],
)  # fmt: skip
def test_what_the_command_line_itself_refuses_has_exit_code_2(command):
    assert invoke(*command.split()).exit_code == 2


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
    assert "`make data`" in str(result.exception)


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
    assert UniversalPerturbation.load(checkpoint).run["position"] > 0
    succeed(*command)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
