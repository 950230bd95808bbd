"""The hypotheses of the fair test, written down before it was run."""

import dataclasses
from typing import Literal

Rate = Literal["published", "tuned"]


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


_FULL = Competitor("full")

HYPOTHESES = (
    Hypothesis(
        Competitor("full", "published"),
        Competitor("gradient_only", "published"),
        "Does the published comparison reproduce, at its own settings?",
    ),
    Hypothesis(
        _FULL,
        Competitor("gradient_only_wide"),
        "Do activity and memory help at equal bounds and equal tuning?",
    ),
    Hypothesis(
        _FULL, Competitor("permuted"), "Does it matter which coordinate gets which coefficient?"
    ),
    Hypothesis(
        _FULL, Competitor("random"), "Does α do more than noise of the same mean and variance?"
    ),
    Hypothesis(
        _FULL, Competitor("norm_matched"), "Does α do more than change the size of the step?"
    ),
    *(
        Hypothesis(_FULL, Competitor(arm), "Is the full method better than a tuned baseline?")
        for arm in (
            "sgd",
            "sgd_homeostasis",
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
