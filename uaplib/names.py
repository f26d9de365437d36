"""Looking a name up, with a helpful error when it is not there."""

import difflib
from collections.abc import Iterable


def check_name(argument: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`; else raise ValueError that names the argument and the nearest matches."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(f"{argument}={name!r} is unknown. {hint}Known: {', '.join(known)}")
