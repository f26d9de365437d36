"""Seeds made of seeds."""

from uaplib import provenance


def derived_seed(seed: int, number: int) -> int:
    """Return the seed of the `number`-th part of what goes by `seed`: what one part draws changes no other."""
    return int(provenance.digest([seed, number])[:16], 16)
