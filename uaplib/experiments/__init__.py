"""The book's own experiments: recipes, the images they see, the studies they belong to, and where results are kept."""

from uaplib.balls import linf
from uaplib.experiments.images import images_for
from uaplib.experiments.recipes import Measured, Recipe, ablation

__all__ = ["Measured", "Recipe", "ablation", "images_for", "linf"]
