"""What a search tries: a quasi-random design over the settings of an arm."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from scipy.stats import qmc

from experiments.cells import ConfigError, Settings
from experiments.foreign import Foreign
from experiments.naming import find_arm

LEARNING_RATE, WEIGHT_DECAY = "learning_rate", "weight_decay"
REACH = 10.0  # of the default space around a built-in arm's learning rate, to either side
FOREIGN_REACH = 10**1.5  # around one that its authors chose for other tasks
DECAYS = (1e-5, 1e-1)
DIGITS = 3  # of what is tried: enough to tell trials apart, few enough to be read

_RANGE = re.compile(r"(\w+)=(log|linear)\(([^,]+),([^,]+)\)")


@dataclasses.dataclass(frozen=True)
class Space:
    """The range of one setting.

    Attributes:
      low: the lowest value.
      high: the highest value.
      scale: whether equal ratios or equal differences are equally likely.
    """

    low: float
    high: float
    scale: Literal["log", "linear"] = "log"

    def at(self, share: float) -> float:
        """The value at a share of the way from low to high.

        >>> Space(1e-4, 1.0).at(0.5), Space(0.8, 1.0, "linear").at(0.25)
        (0.01, 0.85)
        """
        if self.scale == "log":
            value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            value = self.low + share * (self.high - self.low)
        return float(f"{value:.{DIGITS}g}")

    def beyond(self, side: Literal["low", "high"]) -> "Space":
        """The range of half the size that follows at one side; of a logarithmic one alone."""
        reach = math.sqrt(self.high / self.low)
        if side == "low":
            return Space(self.low / reach, self.low)
        return Space(self.high, self.high * reach)


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one trial of a search sets.

    Attributes:
      learning_rate: the peak, under a schedule.
      settings: what else varies, sorted by name.
    """

    learning_rate: float
    settings: Settings = ()

    def values(self) -> dict[str, float]:
        """All by name."""
        return {LEARNING_RATE: self.learning_rate, **dict(self.settings)}

    def __str__(self) -> str:
        return ", ".join([f"{self.learning_rate:g}", *(f"{k} {v:g}" for k, v in self.settings)])


def parse(texts: Sequence[str]) -> dict[str, Space]:
    """Reads ranges of settings.

    >>> parse(["learning_rate=log(1e-4, 1)"])
    {'learning_rate': Space(low=0.0001, high=1.0, scale='log')}

    Raises:
      ConfigError: one is not of that form, is empty, or is given twice.
    """
    spaces: dict[str, Space] = {}
    for text in texts:
        found = _RANGE.fullmatch(re.sub(r"\s", "", text))
        try:
            if not found:
                raise ValueError
            low, high = float(found[3]), float(found[4])
        except ValueError:
            raise ConfigError(
                f"search takes name=log(low, high) and name=linear(low, high), got {text!r}."
            ) from None
        name, scale = found[1], found[2]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"search: {name} must have low below high, got {text!r}.")
        if scale == "log" and low <= 0:
            raise ConfigError(f"search: {name} on a logarithmic scale must be above 0, got {text}.")
        if name in spaces:
            raise ConfigError(f"search gives {name} twice.")
        spaces[name] = Space(low, high, "log" if scale == "log" else "linear")
    return spaces


def spaces_of(arm: str, asked: Mapping[str, Space]) -> dict[str, Space]:
    """What a search varies of an arm: its learning rate, its weight decay where it has one.

    >>> sorted(spaces_of("adamw", {}))
    ['learning_rate', 'weight_decay']
    >>> sorted(spaces_of("sgd", parse(["b1=linear(0.8, 0.99)"])))
    ['learning_rate']

    Args:
      arm: its name.
      asked: ranges in place of the default ones, and of further settings; an arm that does not have
        a setting does without it.
    """
    of = find_arm(arm)
    reach = FOREIGN_REACH if isinstance(of.factory, Foreign) else REACH
    spaces = {LEARNING_RATE: Space(of.learning_rate / reach, of.learning_rate * reach)}
    if WEIGHT_DECAY in of.settings or (of.alias_takes(WEIGHT_DECAY)):
        spaces[WEIGHT_DECAY] = Space(*DECAYS)
    return spaces | {
        name: space for name, space in asked.items() if name == LEARNING_RATE or of.takes(name)
    }


def design(spaces: Mapping[str, Space], trials: int, seed: int = 0) -> list[Trial]:
    """Trials that cover the space evenly: a scrambled Halton sequence, the same on every machine.

    >>> [str(trial) for trial in design({"learning_rate": Space(1e-3, 1.0)}, 3)]
    ['0.132', '0.00418', '0.744']

    References:
      Halton, On the efficiency of certain quasi-random sequences of points, 1960; Owen, A
      randomized Halton algorithm in R, 2017.
    """
    names = sorted(spaces)
    points = qmc.Halton(len(names), rng=seed).random(trials)
    found = []
    for point in points:
        values = {name: spaces[name].at(share) for name, share in zip(names, point, strict=True)}
        rate = values.pop(LEARNING_RATE)
        found.append(Trial(rate, tuple(sorted(values.items()))))
    return found
