"""The Python in the prose pages runs, and the bibliography has the papers of the methods."""

import re

import pytest

from tests.book.conftest import ROOT, working_files
from uaplib.attacks import METHODS

FENCE = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
BLOCKS = {
    name: [block for _, block in FENCE.findall((ROOT / name).read_text(encoding="utf-8"))]
    for name in working_files("book/*.md")
}


@pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if blocks])
def test_blocks_run_from_top_to_bottom(name, clothes, crafting_clothes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "prose"}
    for number, block in enumerate(BLOCKS[name], start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), namespace)
    if name == "book/your-own-model.md":
        lines = capsys.readouterr().out.splitlines()
        rates = {line.split()[0]: float(line.split()[1]) for line in lines if "dominant" in line}
        assert rates["uap"] > rates["noise"] + 10
        assert (tmp_path / "my-uap.safetensors").exists()


def test_the_guide_has_code():
    assert len(BLOCKS["book/your-own-model.md"]) >= 6


def test_the_papers_of_the_methods_are_in_the_bibliography():
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    assert [row.paper for row in METHODS.values() if row.paper and f"{{{row.paper}," not in bibliography] == []
