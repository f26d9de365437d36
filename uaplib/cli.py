"""The command `uaplib`: train, craft, evaluate, transfer, list.

Help, lists and refusals are to come at once, so each command imports what it computes with, after its checks.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from uaplib import __version__, data, models
from uaplib.catalogue import CHAPTER_MODEL, EFFICIENTNET_LITE, METHODS, MIDAS
from uaplib.names import check_name
from uaplib.releases import RELEASES

if TYPE_CHECKING:
    from uaplib.perturbation import UniversalPerturbation
    from uaplib.recipes import Recipe

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"uaplib {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: `uaplib train resnet-mini --seed 0`, or `uaplib train --all`.")
def train(
    name: Annotated[str, typer.Argument(help="A network of the project; `uaplib list models` shows them.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Train all of them.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's own number.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Part of the recipe: it changes the last bits.")] = 1,
) -> None:
    """Train a network (classifier, segmenter or depth) and write its weights and model card into the package."""
    if every == bool(name):
        raise ValueError("name one network, or say --all")
    from uaplib.train import train as run

    for each in [*models.MINIS, *models.DENSE] if every else [name]:
        _print_json(run(each, seed=seed, epochs=epochs, threads=threads))


@app.command(epilog="Example: `uaplib craft uap --model resnet-mini --eps-255 24 --images 100 --out uap.safetensors`.")
def craft(
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(METHODS)}.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Craft what the book's chapters load and is not there.")] = False,
    model: Annotated[str, typer.Option(help="The network to craft on.")] = CHAPTER_MODEL,
    eps_255: Annotated[float | None, typer.Option(min=0, help="An l-infinity budget, in 255ths.")] = None,
    eps_l2: Annotated[float | None, typer.Option(min=0, help="An l2 budget, in units of [0, 1].")] = None,
    images: Annotated[int, typer.Option(min=1, max=60000, help="Number of crafting images.")] = 100,
    passes: Annotated[int, typer.Option(min=1, help="At most this many passes.")] = 5,
    target_rate: Annotated[float, typer.Option(min=0, max=1, help="Stop at this rate on the crafting images.")] = 1.0,
    variant: Annotated[str, typer.Option(help="An ablation of the book; see uaplib.recipes.VARIANTS.")] = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Default: artifacts/ and a name made of the parameters.")] = None,
) -> None:
    """Craft a universal perturbation. Ctrl-C keeps the work done; the same command goes on from there."""
    if every == bool(method):
        raise ValueError("name one method, or say --all")
    if not every and (eps_255 is None) == (eps_l2 is None):
        raise ValueError("give one budget: --eps-255 or --eps-l2")
    if not every:
        check_name("method", method, METHODS)
    from uaplib import recipes
    from uaplib.balls import NormBall

    if every:
        for recipe in recipes.book():
            _craft_for_the_book(recipe)
        return
    ball = recipes.linf(eps_255) if eps_255 is not None else NormBall(2, eps_l2)
    recipe = recipes.Recipe(method, model, ball, images, seed, passes, target_rate, variant)
    _craft(recipe, out or Path("artifacts") / f"{recipe.name}.safetensors")


def _craft_for_the_book(recipe: "Recipe") -> None:
    """Craft and measure what is not there. Of an ablation, only the measurement is kept."""
    from uaplib import recipes

    folder = recipes.ARTIFACTS
    path = folder / f"{recipe.name}.safetensors"
    kept = recipe.find(folder)
    if kept is None and not (recipe.variant and recipe.find_measured(folder)):
        kept = _craft(recipe, path)
        path.with_suffix(".json").unlink(missing_ok=True)
    if recipe.method != "uap" and recipe.find_measured(folder) is None:  # a UAP carries its rates in its history
        recipe.keep_measured(kept, folder, progress=True)
    if recipe.variant:
        path.unlink(missing_ok=True)


def _craft(recipe: "Recipe", path: Path) -> "UniversalPerturbation":
    checkpoint = path.with_name(path.name + ".part")
    try:
        crafted = recipe.craft(progress=True, checkpoint=checkpoint)
        crafted.save(path)
    except KeyboardInterrupt:
        _interrupted()
    checkpoint.unlink(missing_ok=True)
    print(path)
    return crafted


@app.command(epilog="Example: `uaplib evaluate uap.safetensors --model vgg16-mini --images 10000`.")
def evaluate(
    file: Annotated[Path, typer.Argument(help="A perturbation written by `uaplib craft`.")],
    model: Annotated[str, typer.Option(help="The network to fool; default: the one it was crafted on.")] = "",
    images: Annotated[int, typer.Option(min=1, max=10000, help="Number of test images.")] = 10000,
    clip: Annotated[bool, typer.Option(help="Clip image plus perturbation to [0, 1].")] = True,
) -> None:
    """Measure a perturbation on the network's evaluation images, and print the result as JSON."""
    from uaplib import recipes
    from uaplib.perturbation import UniversalPerturbation

    perturbation = UniversalPerturbation.load(file)
    name = model or perturbation.source
    if not name:
        raise ValueError(f"{file} was not crafted on a network; name one with --model")
    test = recipes.evaluation_set(name, images)
    evaluate = recipes.EVALUATE[models.says(name)]
    result = evaluate(models.load(name), *test, perturbation.delta, clip=clip, progress=True)
    _print_json({"perturbation": str(file), "model": name, **result.as_dict()})


@app.command(
    epilog="Example: `uaplib transfer --sources mine.safetensors --sources published:uap-VGG-16 --sources noise "
    "--victims efficientnet-lite0 --victims efficientnet-lite1 --images 600 --out matrix.csv`."
)
def transfer(
    study: Annotated[
        str, typer.Option(help="A whole matrix: fashion-mnist or imagenet, kept in artifacts/, or paper.")
    ] = "",
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of `uaplib craft`, published:NAME, published for all of them, or noise (of the first "
            "other's size and budget). Repeat it for more."
        ),
    ] = None,
    victims: Annotated[list[str] | None, typer.Option(help="A network to fool. Repeat it for more.")] = None,
    images: Annotated[int, typer.Option(min=1, max=10000, help="Number of test images.")] = 10000,
    clip: Annotated[bool, typer.Option(help="Clip image plus perturbation to [0, 1].")] = True,
    out: Annotated[Path, typer.Option(help="The table; finished cells go beside it, .jsonl.")] = Path("transfer.csv"),
) -> None:
    """Measure perturbations on networks, each on each. Finished cells are kept: the same command goes on from there."""
    if bool(study) == bool(sources):
        raise ValueError("name sources and victims, or a study")
    from uaplib import recipes
    from uaplib.devices import best_device
    from uaplib.transfer import transfer_matrix

    cells, test = out.with_suffix(".jsonl"), partial(recipes.evaluation_set, count=images)
    if study:
        chosen = recipes.transfer_studies()[check_name("study", study, recipes.transfer_studies())]
        rows, victims = chosen.sources(), chosen.victims
        cells = recipes.ARTIFACTS / f"transfer-{study}.jsonl"
    else:
        victims = [models.check_model_name(name, "victims") for name in victims or []]
        rows = _sources(sources)
    out.parent.mkdir(parents=True, exist_ok=True)  # now, not after hours
    try:
        matrix = transfer_matrix(rows, victims, test, clip=clip, device=best_device(), cells=cells, progress=True)
    except KeyboardInterrupt:
        _interrupted()
    matrix.to_csv(out)
    print(matrix.pivot().round(1).to_string())
    print(out)


def _sources(names: list[str]) -> dict[str, "UniversalPerturbation"]:
    """Perturbations by what the user calls them."""
    from uaplib import published
    from uaplib.perturbation import UniversalPerturbation, noise

    found = {}
    for name in names:
        if name == "published":
            found |= {f"published:{each}": published.load(each) for each in RELEASES}
        elif name.startswith("published:"):
            found[name] = published.load(name.removeprefix("published:"))
        elif name != "noise":
            found[name] = UniversalPerturbation.load(name)
    if "noise" in names:
        if not found:
            raise ValueError("--sources noise takes size and budget from another source; name one")
        first = next(iter(found.values()))
        found["noise"] = noise(first.ball, tuple(first.delta.shape[1:]))
    return found


@app.command("list", epilog="Example: `uaplib list models`.")
def list_(
    what: Annotated[str, typer.Argument(help="models, torchvision, data, methods or published.")] = "models",
) -> None:
    """List what can be named in the other commands."""
    check_name("what", what, ("models", "torchvision", "data", "methods", "published"))
    if what == "models":
        from rich.console import Console
        from rich.table import Table

        table = Table("name", "parameters", "says", "on test images", "trained by")
        for name in [*models.MINIS, *models.DENSE]:
            card, says = models.card(name), models.says(name)
            measure = {"label": "test_accuracy", "classes": "test_mean_iou", "depth": "test_delta_1"}[says]
            grade = f"{measure.removeprefix('test_')} {100 * card[measure]:.2f} %"
            table.add_row(name, f"{card['parameters']:,}", says, grade, card["command"])
        Console().print(table)
        print(
            f"trained by others: {', '.join([*EFFICIENTNET_LITE, MIDAS])}, timm:NAME, and every classifier and "
            "segmenter of torchvision by its name there (`uaplib list torchvision` lists them)"
        )
    elif what == "torchvision":
        print("\n".join([*models.pretrained.torchvision_names(), *models.pretrained.segmenter_names()]))
    else:
        print("\n".join({"data": data.MODULES, "methods": METHODS, "published": RELEASES}[what]))


def _interrupted() -> NoReturn:
    print("uaplib: interrupted; the same command goes on from here", file=sys.stderr)
    sys.exit(130)


def _print_json(value: dict) -> None:
    print(json.dumps(value, indent=2))


def main() -> None:
    """Run the command; bad input ends with exit code 2 and one line instead of a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        print(f"uaplib: {error}", file=sys.stderr)
        sys.exit(2)
