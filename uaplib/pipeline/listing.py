"""What Sphinx is told for the book's pages: the directive `methods`, and which members of a class say nothing.

The directive is the table of `METHODS`, so that no page repeats it.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from uaplib.attacks import methods


def table() -> str:
    """Return the methods in Markdown, one line each: name, title and paper, what it sees, cost."""
    lines = ["| name | method | what it sees of the data | cost |", "|---|---|---|---|"]
    for name, row in methods.METHODS.items():
        paper = f" {{cite}}`{row.paper}`" if row.paper else ""
        lines.append(f"| `{name}` | {row.title}{paper} | {row.sees} | {row.cost} |")
    return "\n".join(lines)


class Methods(SphinxDirective):
    """The directive; it takes no argument."""

    def run(self) -> list[nodes.Node]:
        """Return what the page would be made of if the table stood there."""
        self.env.note_dependency(methods.__file__)  # a page that did not change is read again when the table did
        found = nodes.Element()
        self.state.nested_parse(StringList(table().splitlines()), self.content_offset, found)
        return found.children


def _skip(app: Sphinx, what: str, name: str, found: object, skip: bool, options: object) -> bool | None:
    """Whether to leave a member out: the fields of a named tuple say "Alias for field number 0", and nothing else."""
    return True if str(found.__doc__).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both; Sphinx calls this."""
    app.add_directive("methods", Methods)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
