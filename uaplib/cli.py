"""The command `uaplib`: train, craft, import, evaluate, transfer, leaderboard, get, list, book.

Help, lists and refusals are to come at once, so each command imports what it computes with, after its checks.
"""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from uaplib import __version__, data, models
from uaplib.attacks import METHODS
from uaplib.attacks.methods import SEES
from uaplib.files import check_writable, checkout
from uaplib.models.spec import CHAPTER_MODEL, NETWORKS
from uaplib.names import check_name
from uaplib.pipeline import commands as book
from uaplib.releases import LAYOUTS, RELEASES, of_the_matrix

if TYPE_CHECKING:
    import torch

    from uaplib.experiments import Recipe
    from uaplib.perturbation import UniversalPerturbation

_LINE = 400  # characters of an error that are shown
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps; auto takes the fastest that is there.")]
Fit = Annotated[str, typer.Option(help="How a perturbation of another size comes to the images': tiled or resized.")]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
app.add_typer(
    book.app,
    name="book",
    help="Execute and render the book, in a checkout of it.",
    epilog="Example: `uaplib book update 01-fgsm`.",
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


@app.command(epilog="Example: `uaplib train resnet-mini --seed 0 --out weights`.")
def train(
    name: Annotated[str, typer.Argument(help="A network of the project; `uaplib list models` shows them.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Train all of them.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1)] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's own number.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Part of the recipe: it changes the last bits.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder for weights and model card.")] = Path("weights"),
    package: Annotated[
        bool, typer.Option("--package", help="Instead, replace the weights of the book, in a checkout of it.")
    ] = False,
) -> None:
    """Train a network (classifier, segmenter or depth) and write its weights and model card into a folder."""
    if every == bool(name):
        raise ValueError("name one network, or say --all")
    if package and not checkout():
        raise ValueError("--package replaces the weights of the book, and this is no checkout of it; use --out FOLDER")
    known = models.trained_here()
    chosen = known if every else [check_name("name", name, known)]
    from uaplib.train import train as run

    for each in chosen:
        folder = models.weights_file(each).parent if package else out
        file = folder / f"{each}.safetensors"
        if file.exists() and not package:
            raise ValueError(f"{file} is there already; name another folder with --out")
        try:
            _print_json(run(each, folder, seed=seed, epochs=epochs, threads=threads))
        except KeyboardInterrupt:
            _say(f"interrupted; nothing of {each} is kept")
            sys.exit(130)
        _say(file)


@app.command(epilog="Example: `uaplib craft uap --model resnet-mini --eps-255 24 --images 100 --out uap.safetensors`.")
def craft(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help=f"One of: {', '.join(METHODS)}.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Craft what the book's chapters load and is not there.")] = False,
    model: Annotated[str, typer.Option(help="The network to craft on.")] = CHAPTER_MODEL,
    eps_255: Annotated[float | None, typer.Option(max=255, help="An l-infinity budget, in 255ths.")] = None,
    eps_l2: Annotated[float | None, typer.Option(help="An l2 budget, in units of [0, 1].")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Number of crafting images.")] = None,
    passes: Annotated[int | None, typer.Option(min=1, help="At most this many passes, of uap.")] = None,
    target_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop at this rate on the crafting images, of uap.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method: NAME=VALUE. Repeat it for more.")
    ] = None,
    variant: Annotated[str, typer.Option(help="A preset of the method; an ablation of the book.")] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1)] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Default: artifacts/ and a name made of the parameters.")] = None,
) -> None:
    """Craft a universal perturbation. Ctrl-C keeps the work done; the same command goes on from there."""
    if every == bool(method):
        raise ValueError("name one method, or say --all")
    if every:
        _refuse_options(context, set(context.params) - {"every", "device"}, "--all takes no other option")
    else:
        check_name("method", method, METHODS)
        if (eps_255 is None) == (eps_l2 is None):
            raise ValueError("give one budget: --eps-255 or --eps-l2")
        if not (eps_255 if eps_l2 is None else eps_l2) > 0:
            raise ValueError("the budget must be more than 0: --eps-255 10 is the papers'")
    if method and method != "uap":
        _refuse_options(context, {"passes", "target_rate"}, f"{method} has no such option, it is of uap")
    if method and METHODS[method].sees == "nothing":
        _refuse_options(context, {"images"}, f"{method} has no such option, it sees no image")
    given = {"images": images, "max_passes": passes, "target_rate": target_rate}
    changes = {name: value for name, value in given.items() if value is not None} | _settings(settings or [])
    from uaplib.balls import NormBall, linf
    from uaplib.devices import pick_device
    from uaplib.experiments import Recipe, ablation, studies

    place = pick_device(device)
    if every:
        for recipe in studies.book():
            _craft_for_the_book(recipe, place)
        _measure_studies(place)
        for cells in sorted({recipe.cells for recipe in studies.book()}):
            _compact(cells)
        return
    ball = linf(eps_255) if eps_255 is not None else NormBall(2, eps_l2)
    preset = ablation(method, model, ball, variant).settings
    recipe = Recipe(method, model, ball, seed, {**preset, **changes})
    _craft(recipe, out or Path("artifacts") / recipe.place, place)


_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}


def _settings(texts: list[str]) -> dict[str, Any]:
    """The settings in texts NAME=VALUE; a value is read as JSON, and is text where it is none."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"--set takes NAME=VALUE, not {text!r}")
        try:
            found[name] = json.loads(_OF_PYTHON.get(value, value))
        except ValueError:
            found[name] = value
    return found


_OPTIONS = {"settings": "set", "every": "all"}  # what an argument is called on the command line, where that differs


def _refuse_options(context: typer.Context, names: set[str], why: str) -> None:
    """Raise for options that were given on the command line and would be ignored."""
    given = [name for name in names if context.get_parameter_source(name).name == "COMMANDLINE"]
    if given:
        options = sorted("--" + _OPTIONS.get(name, name).replace("_", "-") for name in given)
        raise ValueError(f"{', '.join(options)}: {why}")


def _craft_for_the_book(recipe: "Recipe", device: "torch.device") -> None:
    """Craft and measure what is not there. Of some, only the record and the cell are kept (`studies.keeps`)."""
    from uaplib.experiments import store, studies
    from uaplib.journal import Journal

    folder = store.kept_folder()
    path, only_record = folder / recipe.place, not studies.keeps(recipe)
    if only_record and not path.is_file() and recipe.find_measured():
        return
    kept = recipe.find(iter([path])) or _craft(recipe, path, device, replace=True)
    if recipe.find_measured() is None:
        recipe.keep_measured(kept, Journal(folder / recipe.cells), progress=True)
    if only_record and _measure_rows(recipe, device):  # as long as the perturbation lies there, the work is not over
        recipe.keep_record(kept, folder)
        path.unlink()


def _measure_rows(recipe: "Recipe", device: "torch.device") -> bool:
    """Measure a recipe's rows of the book's matrices, and return whether no network is left out."""
    from uaplib.experiments import store, studies

    rows = [study.row_of(recipe) for study in studies.kept_studies() if recipe in study.recipes]
    return not any(row.measure(device, store.kept_folder()).left_out for row in rows)


def _measure_studies(device: "torch.device") -> None:
    """Measure who fools whom, and what perturbations stand beside, where it is not there."""
    from uaplib.experiments import store, studies

    try:
        for study in studies.kept_studies():
            study.measure(device, store.kept_folder())
    except KeyboardInterrupt:
        _interrupted()


def _compact(cells: str) -> None:
    """Remove the cells of the book that were measured again since."""
    from uaplib.cells import compact
    from uaplib.experiments import store
    from uaplib.journal import Journal

    compact(Journal(store.kept_folder() / cells))


def _craft(recipe: "Recipe", path: Path, device: "torch.device", replace: bool = False) -> "UniversalPerturbation":
    """Craft into a file that is not there yet, was crafted by the same command, or is to be replaced."""
    from uaplib.experiments.images import images_from
    from uaplib.perturbation import UniversalPerturbation

    check_writable(path)
    if path.is_file() and not replace:
        try:
            kept = UniversalPerturbation.load(path)
        except ValueError as error:
            raise ValueError(f"{path} is there already, and is no perturbation of uaplib; name another file") from error
        if not recipe.matches(kept):
            raise ValueError(f"{path} is another perturbation: crafted otherwise or on other images. Name another file")
        print(path)
        return kept
    if recipe.row.sees != "nothing":
        _say(f"crafting {recipe.name} on images from: {images_from(recipe.model, 'crafting')}")
    try:
        crafted = recipe.craft_into(path, progress=True, device=device)
    except KeyboardInterrupt:
        _interrupted()
    print(path)
    return crafted


@app.command("import", epilog="Example: `uaplib import perturbation.npy --layout HWC-RGB-255 --out mine.safetensors`.")
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="A perturbation of someone else's: .npy, .npz, .mat, .pt, .pth, .safetensors, .h5 or .png."
        ),
    ],
    layout: Annotated[
        str,
        typer.Option(
            help="Order of the axes, order of the colours, and the unit of a pixel: "
            f"{', '.join(LAYOUTS)}. Without it, all that are possible are listed, and nothing is written."
        ),
    ] = "",
    eps_255: Annotated[float, typer.Option(min=0, max=255, help="The budget that it was made for, in 255ths.")] = 10,
    eps_l2: Annotated[float | None, typer.Option(min=0, help="Instead, an l2 budget in units of [0, 1].")] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="What the values were divided by in red, green and blue, for layouts that end in std."),
    ] = None,
    zero: Annotated[float | None, typer.Option(help="The value that means no change; 128 of a PNG.")] = None,
    scale: Annotated[float, typer.Option(help="What the values are multiplied by.")] = 1.0,
    method: Annotated[str, typer.Option(help="For the record.")] = "imported",
    source: Annotated[str, typer.Option(help="The network that it was crafted on, for the record.")] = "",
    out: Annotated[Path | None, typer.Option(help="Default: the file's name with the ending .safetensors.")] = None,
) -> None:
    """Bring in a perturbation of someone else's, so that evaluate and transfer take it."""
    if not layout:
        _refuse_options(context, set(context.params) - {"file", "layout"}, "without a layout nothing is read")
        from uaplib import published

        print(published.guess(file).to_string(index=False))
        _say(f"{file} can be read in these ways; choose by --layout, and by --zero and --scale where they differ")
        return
    check_name("layout", layout, LAYOUTS)
    if eps_l2 is not None:
        _refuse_options(context, {"eps_255"}, "give one budget")
    target = out or file.with_suffix(".safetensors")
    check_writable(target)
    if target.exists():
        raise ValueError(f"{target} is there already; name another file with --out")
    from uaplib import published

    coded = {"std": std, "zero": zero, "scale": scale}
    found = published.read(file, layout, eps_255=eps_255, eps_l2=eps_l2, **coded, method=method, source=source)
    found.save(target)
    saturated = "" if eps_l2 else f", {found.saturation:.0%} of the values saturated"
    _say(f"{tuple(found.delta.shape[1:])}, {found.ball}{saturated}")
    print(target)


@app.command(epilog="Example: `uaplib evaluate uap.safetensors --model vgg16-mini --images 10000`.")
def evaluate(
    file: Annotated[Path, typer.Argument(help="A perturbation written by `uaplib craft` or `uaplib import`.")],
    model: Annotated[str, typer.Option(help="The network to fool; default: the one it was crafted on.")] = "",
    images: Annotated[int | None, typer.Option(min=1, help="At most so many test images; default: all.")] = None,
    clip: Annotated[bool, typer.Option(help="Clip image plus perturbation to [0, 1].")] = True,
    fit: Fit = "tiled",
    device: Device = "auto",
) -> None:
    """Measure a perturbation on the network's evaluation images, and print the result as JSON."""
    from uaplib.devices import device_name, pick_device
    from uaplib.experiments.images import images_for, images_from
    from uaplib.experiments.recipes import weights_sha256
    from uaplib.metrics.tasks import TASKS
    from uaplib.perturbation import UniversalPerturbation

    perturbation = UniversalPerturbation.load(file)
    name = model or perturbation.source
    if not name:
        raise ValueError(f"{file} was not crafted on a network; name one with --model")
    models.check_model_name(name)
    place = pick_device(device)
    test = [tensor.to(place) for tensor in images_for(name, "evaluation", images)]
    fitted = perturbation.fitted(test[0], fit)
    if name == perturbation.source and perturbation.source_sha256 not in ("", weights_sha256(name)):
        _say(f"{name} has other weights than the network that {file} was crafted on")
    origin = images_from(name, "evaluation")
    _say(f"measuring on {len(test[0])} images from: {origin}")
    evaluate = TASKS[models.says(name)].evaluate
    result = evaluate(models.load(name, place), *test, fitted.delta, clip=clip, progress=True)
    about = {"perturbation": str(file), "model": name, "images_from": origin, "device": device_name(place)}
    _print_json(about | {"resized": fitted.run.get("resized")} | result.as_dict())


@app.command(
    epilog="Example: `uaplib transfer --sources mine.safetensors --sources published:uap-VGG-16 --sources noise "
    "--victims efficientnet-lite0 --victims efficientnet-lite1 --images 600 --out matrix.csv`."
)
def transfer(
    context: typer.Context,
    study: Annotated[
        str,
        typer.Option(
            help="A whole matrix: fashion-mnist, fashion-mnist-modern, imagenet or families, kept in artifacts/, or "
            "paper."
        ),
    ] = "",
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of `uaplib craft`, published:NAME, published for those of the book's matrix, or noise or a "
            "pattern, of the first other's size and budget. Repeat it for more."
        ),
    ] = None,
    victims: Annotated[list[str] | None, typer.Option(help="A network to fool. Repeat it for more.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="At most so many test images; default: all.")] = None,
    clip: Annotated[bool, typer.Option(help="Clip image plus perturbation to [0, 1].")] = True,
    fit: Fit = "tiled",
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="The table; finished cells go beside it, .jsonl.")] = Path("transfer.csv"),
) -> None:
    """Measure perturbations on networks, each on each. Finished cells are kept: the same command goes on from there."""
    if bool(study) == bool(sources):
        raise ValueError("name sources and victims, or a study")
    if study:
        _refuse_options(context, {"victims"}, "a study has victims of its own")
    _check_table(out, sources or [])
    from uaplib.devices import pick_device
    from uaplib.experiments import store, studies
    from uaplib.experiments.images import images_for, images_from
    from uaplib.transfer import transfer_matrix

    place, cells = pick_device(device), out.with_suffix(".jsonl")
    try:
        if study:
            known = studies.transfer_studies()
            chosen = known[check_name("study", study, known)]
            victims = chosen.victims
        else:
            victims = [models.check_model_name(name, "victims") for name in victims or []]
            rows = _sources(sources)
        for origin in dict.fromkeys(images_from(victim, "evaluation") for victim in victims):
            _say(f"measuring on images from: {origin}")

        def test(victim: str) -> tuple["torch.Tensor", "torch.Tensor"]:
            return images_for(victim, "evaluation", images)

        how = {"clip": clip, "fit": fit, "device": place}
        if study and images is None and clip and fit == "tiled":  # the book's own cells are of all images, clipped
            matrix = chosen.measure(place, store.kept_folder())
        else:
            perturbations = chosen.sources() if study else rows
            matrix = transfer_matrix(perturbations, victims, test, **how, cells=cells, progress=True)
    except KeyboardInterrupt:
        _interrupted()
    if study:
        _compact(chosen.cells)
    matrix.to_csv(out)
    print(matrix.pivot().round(1).to_string())
    print(f"n: {', '.join(f'{v} {n}' for v, n in matrix.table.groupby('victim', sort=False).n.first().items())}")
    print(out)
    if matrix.left_out:
        raise typer.Exit(2)


@app.command(epilog="Example: `uaplib leaderboard --submit mine.safetensors --name my-method --sees images`.")
def leaderboard(
    context: typer.Context,
    submit: Annotated[Path | None, typer.Option(help="A perturbation to be measured on every network.")] = None,
    name: Annotated[str, typer.Option(help="Its name on the leaderboard: small letters, digits and hyphens.")] = "",
    sees: Annotated[str, typer.Option(help=f"What crafting saw of the data: {', '.join(SEES)}.")] = "",
    device: Device = "auto",
) -> None:
    """Print the book's leaderboard, or check and measure a perturbation of yours, and say where it stands."""
    if submit is None:
        _refuse_options(context, {"name", "sees", "device"}, "give a perturbation by --submit")
    elif not name:
        raise ValueError("--submit needs a --name")
    from uaplib.devices import pick_device
    from uaplib.experiments import leaderboard as board
    from uaplib.experiments import store

    if submit:
        try:
            row = board.submit(submit, name, sees, pick_device(device))
        except KeyboardInterrupt:
            _interrupted()
        for victim in row.fooled:
            print(f"{victim}: {row.rate(victim)}{', crafted on it' if victim in row.seen else ''}")
        print(f"mean over those that it has not seen: {100 * row.mean(row.unseen).value:.1f} %")
        others = [each for each in board.entries() if each.name != row.name]
        print(f"on networks that neither has seen it leaves {row.behind(others)} of {len(others)} others behind")
        for file in board.files(name):
            print(store.kept_folder() / file)
        return
    rows = board.entries()
    print(board.table(rows).round(1).to_string(index=False))


def _check_table(out: Path, sources: list[str]) -> None:
    """Raise when the table cannot be written, or would replace something else than a table of before."""
    if out.suffix == ".jsonl":
        raise ValueError(f"--out {out}: finished cells go into the file of this name; let the table end in .csv")
    check_writable(out)
    if any(Path(source).exists() and out.exists() and out.samefile(source) for source in sources):
        raise ValueError(f"--out {out} is one of the sources; name another file")
    if out.is_file() and not out.read_bytes().startswith(b"source,crafted_on,method,"):
        raise ValueError(f"{out} is there already, and is no table of `uaplib transfer`; name another file")


def _sources(names: list[str]) -> dict[str, "UniversalPerturbation"]:
    """Perturbations by what the user calls them."""
    from uaplib import published
    from uaplib.perturbation import UniversalPerturbation

    found, made = {}, [name for name in names if name in METHODS and not METHODS[name].optimised]
    for name in names:
        if name == "published":
            found |= {f"published:{each}": published.load(each) for each in of_the_matrix()}
        elif name.startswith("published:"):
            found[name] = published.load(name.removeprefix("published:"))
        elif name not in made:
            found[name] = UniversalPerturbation.load(name)
    if made and not found:
        raise ValueError(f"--sources {made[0]} takes size and budget from another source; name one")
    first = next(iter(found.values()))
    return found | {name: METHODS[name].make(first.ball, tuple(first.delta.shape[1:])) for name in made}


@app.command(epilog="Example: `uaplib get --chapter 5`.")
def get(
    chapter: Annotated[list[int] | None, typer.Option(help="The number of a chapter. Repeat it for more.")] = None,
    every: Annotated[bool, typer.Option("--all", help="The results of all chapters.")] = False,
) -> None:
    """Fetch the kept results that a chapter reads, once, so that it runs without a network and crafts nothing slow."""
    if every == bool(chapter):
        raise ValueError("name a chapter, or say --all")
    from uaplib.experiments import registry, store

    wanted = set(chapter or ())
    if unknown := sorted(wanted - set(registry.chapters())):
        known = ", ".join(map(str, registry.chapters()))
        raise ValueError(f"chapter={unknown[0]} reads no kept result; those that do are {known}")
    names = [name for name, entry in registry.entries().items() if every or wanted & set(entry.chapters)]
    if all(map(store.here, names)):
        _say("all of it is there already")
    try:
        missing = store.fetch_all(names)
    except KeyboardInterrupt:
        _interrupted()
    if missing:
        raise FileNotFoundError(_what_is_missing(missing, len(names)))
    for folder in dict.fromkeys(store.here(name).parents[name.count("/")] for name in names):
        print(folder)


def _what_is_missing(names: list[str], wanted: int) -> str:
    from uaplib.experiments import store

    where = store.source()
    if not where:
        return f"{len(names)} of {wanted} files are not in {store.ARTIFACTS}, for instance {names[0]}"
    return f"{len(names)} of {wanted} files could not be had from {where}, {names[0]}: {store.failure(names[0])}"


@app.command("list", epilog="Example: `uaplib list models`.")
def list_(
    what: Annotated[str, typer.Argument(help="models, torchvision, data, methods or published.")] = "models",
) -> None:
    """List what can be named in the other commands."""
    check_name("what", what, ("models", "torchvision", "data", "methods", "published"))
    if what == "models":
        _list_models()
    elif what == "data":
        for name, row in data.DATA_SETS.items():
            print(f"{name}: {row.title}{', here' if row.here() else ''}")
            print(f"    licence: {row.licence}\n    how to get it: {row.how_to_get()}")
    elif what == "torchvision":
        print("\n".join([*models.pretrained.torchvision_names(), *models.pretrained.segmenter_names()]))
    elif what == "methods":
        for name, row in METHODS.items():
            print(f"{name}: {row.title}\n    sees: {row.sees}; for networks that say: {', '.join(row.tasks)}")
            print(f"    cost: {row.cost}")
    else:
        for name, release in RELEASES.items():
            norm = "l2" if release.norm == "2" else "l∞"
            print(f"{name}: {release.method} of {release.network}, {norm} ≤ {release.budget_255:g}/255")
            print(f"    read as {release.layout}; known from {release.proof}")


def _list_models() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "parameters", "says", "on test images", "trained by")
    for name in models.trained_here():
        card, says = models.card(name), models.says(name)
        measure = {"label": "test_accuracy", "classes": "test_mean_iou", "depth": "test_delta_1"}[says]
        grade = f"{measure.removeprefix('test_')} {100 * card[measure]:.2f} %"
        table.add_row(name, f"{card['parameters']:,}", says, grade, card["command"])
    Console().print(table)
    others = [name for name, network in NETWORKS.items() if not network.training]
    print(
        f"trained by others: {', '.join(others)}, timm:NAME, and every classifier and "
        "segmenter of torchvision by its name there (`uaplib list torchvision` lists them)"
    )


def _interrupted() -> NoReturn:
    _say("interrupted; the same command goes on from here")
    sys.exit(130)


def _say(text: object) -> None:
    print(f"uaplib: {text}", file=sys.stderr)


def _print_json(value: dict) -> None:
    print(json.dumps(value, indent=2))


def _words(error: BaseException) -> str:
    """What an error says, in at most two short lines."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return "\n".join(line if len(line) <= _LINE else f"{line[:_LINE]} ..." for line in lines[:2])


def main() -> None:
    """Run the command; bad input ends with exit code 2 and one or two lines instead of a traceback."""
    warnings.showwarning = lambda message, *_: _say(message)
    try:
        sys.exit(app(standalone_mode=False, prog_name="uaplib"))
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except (
        ArithmeticError, ImportError, OSError, RuntimeError, subprocess.SubprocessError, TypeError, ValueError
    ) as error:  # fmt: skip
        _say(_words(error))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _refused(error)  # by typer, before any command began
    sys.exit(2)


def _refused(error: Any) -> None:
    """Say what is wrong with the command line, and where to look; without any command, show the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    _say(error.format_message())
    print(f"Try: {error.ctx.command_path} --help" if error.ctx else "Try: uaplib --help", file=sys.stderr)
