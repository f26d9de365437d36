"""No import runs upward in the house, and none in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import uaplib

LIBRARY = Path(uaplib.__file__).parent
STOREYS = [
    {"", "names", "files", "checks", "devices", "provenance", "balls", "releases", "foreign"},
    {"perturbation", "cells", "journal"},
    {"data"},
    {"models"},
    {"features", "priors", "plots", "metrics", "patterns", "controls", "published"},
    {"attacks", "parameters"},
    {"train", "defences", "transfer", "geometry"},
    {"experiments"},
    {"pipeline"},
    {"cli"},
]  # a module imports from its own storey and from those below; one that is moved is told by its first name
MOVED = {"depth", "segmentation"}  # the old names, for one release


def modules():
    for file in sorted(LIBRARY.rglob("*.py")):
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), file


NAMES = dict(modules())


def imports(file):
    """The modules of the library that a file imports, in functions too, but not for types alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(node) for block in ast.walk(tree) if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uaplib":
            module = ".".join(node.module.split(".")[1:])
            for alias in node.names:
                yield next(name for name in (f"{module}.{alias.name}".strip("."), module) if name in NAMES)
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == "uaplib")


def storey(name):
    return next(number for number, names in enumerate(STOREYS) if name.split(".")[0] in names)


def test_every_module_has_its_storey_and_every_name_a_module():
    first = {name.split(".")[0] for name in NAMES} - MOVED
    assert first == set().union(*STOREYS)
    assert sum(map(len, STOREYS)) == len(first)


def test_no_import_runs_upward():
    upward = [
        f"{name} imports {other}"
        for name, file in NAMES.items()
        if name.split(".")[0] not in MOVED
        for other in imports(file)
        if storey(other) > storey(name)
    ]
    assert not upward


def test_no_import_runs_in_a_circle():
    graph = {name: set(imports(file)) - {name} for name, file in NAMES.items()}
    packages = {name for name, file in NAMES.items() if file.name == "__init__.py"}  # they import their parts when used
    TopologicalSorter({name: others - packages for name, others in graph.items() if name not in packages}).prepare()
