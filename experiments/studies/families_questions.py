"""What the families are asked: against their bases and placebos, and where the placebos explain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.comparisons import Verdict, compare, rows_of
from experiments.naming import label
from experiments.summary import sample
from experiments.tasks import find_task
from experiments.tuning import Key

CONFIRMATORY, LATE, FLOOR = "hypotheses", "mean of the last three epochs", "noise floor"
ELSEWHERE = "placebos on further tasks"  # asked after a family was seen to be better there
IS_BETTER = "Is {} better than {}, at equal trials?"
ITSELF = "Is an optimizer better than itself, perturbed by one rounding error?"
PLACEBOS = {
    "norm_matched": "Does {} do more than change the size of the step?",
    "permuted": "Does it matter in {} which coordinate gets which coefficient?",
}

Parts = Mapping[Key, pd.DataFrame]


def placebos_of(arm: str) -> dict[str, str]:
    """The names of a family's placebos, and what each of them asks."""
    return {f"{arm}_{kind}": question.format(label(arm)) for kind, question in PLACEBOS.items()}


def hypotheses(
    parts: Parts, tasks: Sequence[str], pairs: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Every family against its base on every task; on the first one against its placebos.

    Args:
      parts: the rows of each task and arm.
      tasks: the one of the search first.
      pairs: the base of each family.
    """
    first, *_ = tasks
    for family, column in ((CONFIRMATORY, "final"), (LATE, "late")):
        for task in tasks:
            for arm, base in pairs.items():
                questions = {base: IS_BETTER.format(label(arm), label(base))}
                if task == first:
                    questions |= placebos_of(arm)
                yield from _compared(parts, task, arm, questions, family, column)
    arm = next(iter(pairs))
    yield from _compared(parts, first, arm, {f"perturbed({arm})": ITSELF}, FLOOR)


def where_better(
    found: pd.DataFrame, further: Sequence[str], pairs: Mapping[str, str]
) -> list[Key]:
    """The further tasks, each with a family that is better than its base there."""
    return [
        (task, row["treatment"])
        for task in further
        for row in rows_of(found, family=CONFIRMATORY, condition=find_task(task).title)
        if row["control"] == pairs[row["treatment"]] and row["verdict"] == Verdict.BETTER
    ]


def explanations(parts: Parts, better: Sequence[Key]) -> Iterator[dict[str, Any]]:
    """Those families against their placebos there."""
    for task, arm in better:
        yield from _compared(parts, task, arm, placebos_of(arm), ELSEWHERE)


def _compared(
    parts: Parts,
    task: str,
    arm: str,
    questions: Mapping[str, str],
    family: str,
    column: str = "final",
) -> Iterator[dict[str, Any]]:
    for control, question in questions.items():
        yield compare(
            question,
            sample(parts[task, arm], column),
            sample(parts[task, control], column),
            family=family,
            condition=find_task(task).title,
        )
