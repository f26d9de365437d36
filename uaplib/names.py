"""Looking a name up, with a helpful error when it is not there."""

import difflib
from collections.abc import Iterable

_LISTED = 12  # names that an error shows


def check_name(argument: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`; else raise ValueError that names the argument and the nearest matches."""
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = ", ".join(known[:_LISTED]) or "none"
    listed += f", and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    raise ValueError(f"{argument}={name!r} is unknown. {hint}Known: {listed}")
