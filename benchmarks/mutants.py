"""Mutation testing of one module or package of the library, by mutmut: `make mutants MODULE=priors`.

mutmut changes one thing at a time (an operator, a number, an argument that is left out) and runs the tests that reach
the changed function. Works on a copy of the tree in `_build/mutants/MODULE`; what is finished stays there, and a second
run tests only what is not killed yet. Prints the names of the changes that no test noticed, and the share killed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTMUT = Path(sys.executable).with_name("mutmut")
# Beside its own: agreement with peer libraries and the papers, and what all attacks and measures refuse and warn of.
TESTS = {
    "attacks": ["tests/conformance", "tests/test_answers.py", "tests/test_checks.py"],
    "metrics": ["tests/conformance", "tests/test_answers.py", "tests/test_checks.py"],
    "transfer": ["tests/conformance"],
}
KILLED = {1, 3}  # exit codes of pytest; a time that ran out is no kill, for the machine may have been busy
# unraisableexception collects garbage at the end of each run, which takes four times as long as a short test.
SETTINGS = """[mutmut]
source_paths=uaplib
only_mutate={sources}
also_copy={copied}
pytest_add_cli_args_test_selection={tests}
pytest_add_cli_args=-p
    no:cacheprovider
    -p
    no:unraisableexception
process_isolation=forkserver
timeout_multiplier=2.0
timeout_constant=5.0
do_not_mutate_patterns=raise \\w+
"""


def places(module: str) -> tuple[list[str], list[str]]:
    """Return the sources of a module as patterns, and its tests, which mirror it."""
    sources = [name for name in (f"uaplib/{module}.py", f"uaplib/{module}/*") if any(ROOT.glob(name))]
    if not sources:
        raise SystemExit(f"there is no module {module!r} in uaplib")
    tests = [path for path in (f"tests/{module}", f"tests/test_{module}.py") if (ROOT / path).exists()]
    return sources, tests + TESTS.get(module, [])


def copy_tree(folder: Path) -> list[str]:
    """Bring the copy of the tree up to date; return what lies at its top."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    for name in names:
        source, copy = ROOT / name, folder / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    return sorted({name.partition("/")[0] for name in names} - {"uaplib"})


def results(folder: Path) -> dict[str, int | None]:
    """Return each mutant's exit code of pytest, None where it was not tested."""
    found = {}
    for path in sorted((folder / "mutants" / "uaplib").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def forget_the_living(folder: Path) -> list[str]:
    """Let mutmut test again what no test noticed; return the names of these mutants."""
    alive = []
    for path in (folder / "mutants" / "uaplib").rglob("*.meta"):
        found = json.loads(path.read_text())
        living = [name for name, code in found["exit_code_by_key"].items() if code not in KILLED]
        found["exit_code_by_key"] |= dict.fromkeys(living)
        path.write_text(json.dumps(found))
        alive += living
    return alive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="a module or package of uaplib, such as attacks")
    module = parser.parse_args().module
    sources, tests = places(module)
    folder = ROOT / "_build" / "mutants" / module
    lists = {"sources": sources, "copied": copy_tree(folder), "tests": tests}
    (folder / "setup.cfg").write_text(SETTINGS.format(**{key: "\n    ".join(names) for key, names in lists.items()}))

    alive = forget_the_living(folder)
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which tests reach what: they may have changed
    subprocess.run([MUTMUT, "run", *alive], cwd=folder, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    codes = results(folder)
    alive = [name for name, code in codes.items() if code not in KILLED]
    for name in alive:
        print(f"survives: {name}")
    print(f"One of them as a change: cd {folder}; {MUTMUT} show NAME")
    print(f"{module}: {len(codes) - len(alive)} of {len(codes)} mutants killed ({1 - len(alive) / len(codes):.1%})")


if __name__ == "__main__":
    main()
