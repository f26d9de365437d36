"""What Sphinx is told: the table of methods where a page asks for it, and which members of a class stay out."""

from types import SimpleNamespace
from typing import NamedTuple

from docutils import nodes

from uaplib.attacks import METHODS, methods
from uaplib.pipeline import listing


class Pair(NamedTuple):
    """Two numbers."""

    first: int
    second: int

    def total(self) -> int:
        """Return their sum."""
        return self.first + self.second


def test_the_table_has_a_line_for_each_method_with_its_paper():
    head, rule, *lines = listing.table().split("\n")
    assert head == "| name | method | what it sees of the data | cost |"
    assert rule == "|---|---|---|---|"
    assert lines == [
        f"| `{name}` | {row.title}{f' {{cite}}`{row.paper}`' if row.paper else ''} | {row.sees} | {row.cost} |"
        for name, row in METHODS.items()
    ]
    assert "| `noise` | random signs | nothing | nothing |" in lines
    assert any(line.startswith("| `fff` | Fast Feature Fool {cite}`mopuri2017fast` | nothing |") for line in lines)


def test_the_directive_is_the_table_and_its_page_depends_on_the_methods():
    noted, parsed = [], []

    def parse(lines, offset, node):
        parsed.append((list(lines), offset))
        node += nodes.paragraph(text="the table")

    directive = listing.Methods.__new__(listing.Methods)
    directive.state = SimpleNamespace(
        document=SimpleNamespace(settings=SimpleNamespace(env=SimpleNamespace(note_dependency=noted.append))),
        nested_parse=parse,
    )
    directive.content_offset = 7
    (found,) = directive.run()
    assert found.astext() == "the table"
    assert noted == [methods.__file__]
    assert parsed == [(listing.table().splitlines(), 7)]


def test_the_fields_of_a_named_tuple_stay_out_and_nothing_else():
    assert listing._skip(None, "attribute", "first", Pair.first, False, None) is True
    assert listing._skip(None, "method", "total", Pair.total, False, None) is None
    assert listing._skip(None, "attribute", "x", None, True, None) is None


def test_sphinx_is_told_of_both():
    told = []
    app = SimpleNamespace(add_directive=lambda *a: told.append(a), connect=lambda *a: told.append(a))
    assert listing.setup(app) == {"parallel_read_safe": True}
    assert told == [("methods", listing.Methods), ("autodoc-skip-member", listing._skip)]
