"""The hypotheses of the fair test, written down before it was run, and their questions."""

import dataclasses
from typing import Literal

Rate = Literal["published", "tuned"]

REPRODUCES = "Does the published comparison reproduce, at the published learning rates?"
SIGNALS = "Do activity and memory help, at equal bounds and equal tuning?"
WHICH_COORDINATE = "Does it matter which coordinate gets which coefficient?"
MORE_THAN_NOISE = "Does α do more than noise of the same mean and variance?"
MORE_THAN_SIZE = "Does α do more than change the size of the step?"
MORE_THAN_ONE = "Is the full method better than the same chain with α ≡ 1, both tuned?"
BASELINE = "Is the full method better than a tuned baseline?"
STRONGEST = "Is the full method better than the strongest tuned baseline?"


@dataclasses.dataclass(frozen=True)
class Competitor:
    """An arm at a learning rate: the published one, or the one that its own search selected."""

    arm: str
    rate: Rate = "tuned"


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """``treatment`` has a higher final test accuracy than ``control``, paired by seed."""

    treatment: Competitor
    control: Competitor
    question: str


def _tuned(control: str, question: str) -> Hypothesis:
    return Hypothesis(Competitor("full"), Competitor(control), question)


HYPOTHESES = (
    Hypothesis(
        Competitor("full", "published"), Competitor("gradient_only", "published"), REPRODUCES
    ),
    _tuned("gradient_only_wide", SIGNALS),
    _tuned("permuted", WHICH_COORDINATE),
    _tuned("random", MORE_THAN_NOISE),
    _tuned("norm_matched", MORE_THAN_SIZE),
    _tuned("sgd", BASELINE),
    _tuned("sgd_homeostasis", MORE_THAN_ONE),
    *(
        _tuned(arm, BASELINE)
        for arm in (
            "momentum",
            "momentum_homeostasis",
            "adam",
            "adam_homeostasis",
            "adamw",
            "adamw_homeostasis",
            "rmsprop",
            "rmsprop_homeostasis",
        )
    ),
)

ARMS_OF_HYPOTHESES = tuple(
    dict.fromkeys(
        competitor.arm
        for hypothesis in HYPOTHESES
        for competitor in (hypothesis.treatment, hypothesis.control)
    )
)
