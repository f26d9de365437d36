"""Which files of the library a chapter depends on: all that its imports reach, found without running anything."""

import ast
import contextlib
from collections.abc import Iterable, Iterator
from fnmatch import filter as matching
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

LIBRARY = "uaplib"
# It says what an installed library fetches. In a checkout a chapter reads the artifacts themselves, as its record says.
NOT_READ = "experiments/registry.csv"


def library_files(cells: Iterable[str], root: Path, also: Iterable[str] = ()) -> list[Path]:
    """Return the files of the library below `root` that code cells reach, sorted.

    Imports count wherever they stand, in functions too, and so do the packages above a module. What is not code, such
    as weights, belongs to the package in whose folder it lies. also: names of modules that are reached in any case.
    """
    modules, reached = dict(_modules(root)), set()
    python = [TransformerManager().transform_cell(cell) for cell in cells]  # without %pip and the like
    waiting = {*also}.union(*(_imports(source, LIBRARY) for source in python))
    while waiting:
        pattern = waiting.pop()
        for name in {*matching(modules, pattern)} - reached:
            reached.add(name)
            file = modules[name]
            package = name if file.name == "__init__.py" else _above(name)
            waiting |= {_above(name), *_imports(file.read_text(encoding="utf-8"), package)}
    return sorted([*(modules[name] for name in reached), *_data(root, reached)])


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for file in (root / LIBRARY).rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def _above(name: str) -> str:
    return name.rpartition(".")[0]


@cache
def _imports(source: str, package: str) -> frozenset[str]:
    """What a module of `package` imports, as patterns of names: of `from a import b`, both a and a.b.

    A name that is only known while it runs, as in `import_module(name)`, may be any module of the package.
    """
    found: set[str] = set()
    with contextlib.suppress(SyntaxError):  # whoever runs it is told
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = resolve_name("." * node.level + (node.module or ""), package)
                found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                name = node.args[0] if node.args else None
                known = isinstance(name, ast.Constant)
                found.add(resolve_name(name.value, package) if known else f"{package}.*")
    return frozenset(found)


def _data(root: Path, reached: set[str]) -> Iterator[Path]:
    """The files that are not code, of the packages that are reached."""
    for file in {*(root / LIBRARY).rglob("*")} - {root / LIBRARY / NOT_READ}:
        if file.is_file() and file.suffix not in (".py", ".pyc") and not file.name.startswith("."):
            package = next(folder for folder in file.parents if (folder / "__init__.py").exists())
            if ".".join(package.relative_to(root).parts) in reached:
                yield file
