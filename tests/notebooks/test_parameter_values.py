"""Every chapter runs to its end with the smallest values that its own check allows, and with large ones.

The values come from the types that the parameters cell states, so a new parameter is tested, or refused here, by
itself. Cells run in this process: a kernel for each run would take longer than the run. Crafting that the book keeps
as artifacts is cut to one iteration, because with other values nothing is kept and chapters would craft for minutes;
cut as well are the pictures on which an iterate is chosen or a kept perturbation measured, and a chapter's own sets of
a fixed number. All else is as in the chapter.
"""

import ast
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from pydantic import TypeAdapter

from uaplib import attacks, models, parameters, priors
from uaplib.data import fashion_mnist
from uaplib.experiments import images, store, studies
from uaplib.pipeline.execute import chapters

ROOT = Path(__file__).parents[2]
CHAPTERS = [pytest.param(path, id=path.stem) for path in chapters(ROOT)]
NAMES = [*models.trained_here(), *studies.IMAGENET_MODELS]  # whose weights are at hand
FEW = 6  # the large value of what says how much is computed, where there is no larger one that is cheap
PICTURES = 5  # figures show so many
GARMENTS = 20  # among the first twenty are boots and sneakers, which chapters look for
TOO_MUCH = {"study_name": ["paper"]}  # values whose networks are a download of gigabytes

Cells = list[tuple[list[str], ast.Module]]


def read(path: Path) -> Cells:
    """Each code cell's tags and statements, from the imports on; before them stands the installation on Colab."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][1:]
    return [(cell.metadata.get("tags", []), ast.parse(cell.source)) for cell in cells]


def place_of_parameters(cells: Cells) -> int:
    return next(place for place, (tags, _) in enumerate(cells) if "parameters" in tags)


def types_and_defaults(cells: Cells) -> tuple[dict[str, Any], dict[str, Any]]:
    """The type and the value of each parameter, both by name, as the parameters cell states them."""
    place, names = place_of_parameters(cells), {}
    for _, tree in cells[: place + 1]:
        execute(tree, names)
    types = names["__annotations__"]
    return types, {name: names[name] for name in types}


def smallest(kind: Any, default: Any) -> Any:
    """The smallest value of a type; of names of networks, the default."""
    return _smallest(TypeAdapter(kind).json_schema(), default)


def _smallest(schema: dict, default: Any) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "string":
        return default
    if schema.get("type") == "array":
        return [_smallest(schema["items"], None)] * schema["minItems"]
    return schema["minimum"] if "minimum" in schema else schema["ge"]


def largest(name: str, kind: Any, default: Any) -> Any:
    """The largest value of a type that is cheap; of names, the first one at hand that is not the default."""
    schema = TypeAdapter(kind).json_schema()
    if "enum" in schema:
        return [value for value in schema["enum"] if value not in TOO_MUCH.get(name, ())][-1]
    if schema.get("type") == "string":
        return next((other for other in NAMES if other != default and allows(kind, other)), default)
    if schema.get("type") == "array":
        return [FEW, 1, FEW // 2, 1]  # neither in order nor all different
    if "exclusiveMaximum" in schema:
        return schema["exclusiveMaximum"] - 1
    highest = schema.get("maximum", schema.get("le"))
    return FEW if highest is None or highest > 1000 else highest


def allows(kind: Any, value: Any) -> bool:
    try:
        parameters.check({"x": value, "__annotations__": {"x": kind}})
    except ValueError:
        return False
    return True


def execute(tree: ast.Module, names: dict[str, Any]) -> None:
    """Run a cell; what its last line shows is made into text, and its figures are drawn."""
    *statements, last = tree.body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(statements if shown else tree.body, []), "cell", "exec"), names)
    if shown:
        str(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def run(cells: Cells, values: dict[str, Any]) -> None:
    """Run a chapter from its first cell to its last with these parameters."""
    names, place = {"__name__": "__main__"}, place_of_parameters(cells)
    for number, (_, tree) in enumerate(cells):
        execute(tree, names)
        if number == place:
            names.update(values)


@pytest.fixture
def hurried(monkeypatch, tmp_path):
    """One iteration, few pictures, and no perturbation left in the reader's data folder."""
    monkeypatch.setattr(store, "data_folder", lambda: tmp_path)
    craft, load_images = attacks.Method.craft, images._load
    selection_pictures, load = priors.selection_pictures, fashion_mnist.load

    def short(row, model, ball, settings, data, **options):
        if row.name == "uap":
            few = data | {name: data[name][:2] for name in ("images", "labels")}
            return craft(row, model, ball, settings | {"max_passes": 1}, few, **options)
        brief = {"max_iterations": 1, "max_gradients": 1, "check_every": 1, "check_after": 0, "batch_size": 1}
        return craft(
            row, model, ball, {name: brief.get(name, value) for name, value in settings.items()}, data, **options
        )

    def some(model, role, count):
        most = FEW if role == "evaluation" else PICTURES
        return load_images(model, role, min(count or most, most))

    monkeypatch.setattr(attacks.Method, "craft", short)
    monkeypatch.setattr(images, "_load", some)
    monkeypatch.setattr(
        priors, "selection_pictures", lambda model, count=100: selection_pictures(model, min(count, PICTURES))
    )
    monkeypatch.setattr(fashion_mnist, "load", lambda split, first=None: load(split, min(first or GARMENTS, GARMENTS)))
    with plt.rc_context(), torch.random.fork_rng(devices=[]):
        plt.switch_backend("agg")
        yield
    plt.close("all")


@pytest.fixture(params=CHAPTERS)
def cells(request) -> Cells:
    return read(request.param)


def test_every_name_of_the_parameters_cell_has_a_type(cells):
    types, _ = types_and_defaults(cells)
    _, tree = cells[place_of_parameters(cells)]
    assert [ast.unparse(statement).partition(":")[0] for statement in tree.body] == list(types)


def test_a_value_that_replaces_a_default_is_refused_by_name(cells):
    """As papermill does it: a plain assignment in a cell behind the parameters."""
    place = place_of_parameters(cells)
    types, _ = types_and_defaults(cells)
    for name in types:
        names = {}
        for _, tree in cells[: place + 1]:
            execute(tree, names)
        names[name] = None
        with pytest.raises(ValueError, match=f"^parameter {name}=None is not allowed"):
            execute(cells[place + 1][1], names)


def test_the_check_allows_what_is_tested(cells):
    types, defaults = types_and_defaults(cells)
    for name, kind in types.items():
        for value in (defaults[name], smallest(kind, defaults[name]), largest(name, kind, defaults[name])):
            assert allows(kind, value), f"{name}={value!r}"


def test_smallest_values(cells, hurried):
    types, defaults = types_and_defaults(cells)
    run(cells, {name: smallest(kind, defaults[name]) for name, kind in types.items()})


def test_largest_values(cells, hurried):
    types, defaults = types_and_defaults(cells)
    run(cells, {name: largest(name, kind, defaults[name]) for name, kind in types.items()})
