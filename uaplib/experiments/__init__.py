"""The book's own experiments: recipes, the images they see, the studies they belong to, and where results are kept."""

from importlib import import_module

_LATER = {
    "Measured": "uaplib.experiments.recipes",
    "Recipe": "uaplib.experiments.recipes",
    "ablation": "uaplib.experiments.recipes",
    "images_for": "uaplib.experiments.images",
    "linf": "uaplib.balls",
}
__all__ = sorted(_LATER)


def __dir__() -> list[str]:
    return [*globals(), *_LATER]


def __getattr__(name: str) -> object:
    """Import a part when it is first used (PEP 562): `uaplib get` does without PyTorch."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
