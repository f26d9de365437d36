"""What an attack has to rise above: random signs of several draws, and patterns that nobody optimised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uaplib.experiments.studies import floor_study, pattern_name
from uaplib.metrics import Proportion
from uaplib.names import check_name


@dataclass(frozen=True)
class Floor:
    """Fooling rates of what nobody optimised, on one network: of the draws of noise, and of the patterns by name."""

    noise: Sequence[Proportion]
    patterns: Mapping[str, Proportion]

    @property
    def best(self) -> str:
        """The name of the pattern that fools most. It was chosen on the images that it is measured on."""
        return max(self.patterns, key=lambda name: self.patterns[name].value)

    def row(self) -> dict[str, float | str]:
        """Return the floor as columns of a table, in per cent."""
        draws = [100 * rate.value for rate in self.noise]
        noise = {"noise": sum(draws) / len(draws), "noise, least": min(draws), "noise, most": max(draws)}
        return noise | {"best pattern": self.best, "its rate": 100 * self.patterns[self.best].value}


def floor(model: str) -> Floor:
    """Return the floor of a classifier of `studies.floor_study`: from its kept cells; what is not kept is measured.

    Raises ValueError for another network (nearest names given).
    """
    study = floor_study()
    recipes = study[check_name("model", model, study)]
    noise = [recipe.measured().evaluation.fooling_rate for recipe in recipes["noise"]]
    named = {pattern_name(recipe): recipe.measured().evaluation.fooling_rate for recipe in recipes["patterns"]}
    return Floor(noise, named)
