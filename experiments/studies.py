"""The studies: which cells each one runs, and what it makes of their records."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from experiments import figures, reference, report
from experiments.cells import Cell, ConfigError, Workload
from experiments.configs import (
    Accuracy,
    DesignSpace,
    Dynamics,
    LowData,
    Noise,
    Optimizers,
    Regime,
    Selection,
    Study,
    Text,
    Transfer,
    Tune,
    Verdict,
)
from experiments.hypotheses import HYPOTHESES, Competitor, Hypothesis
from experiments.optimizers import ARMS
from experiments.records import write_atomically
from experiments.run import Runner
from experiments.search import (
    best_learning_rate,
    first_learning_rates,
    near_learning_rates,
    next_learning_rate,
)
from experiments.statistics import PairedComparison, holm, paired_comparison
from experiments.summary import compare_arms, per_cell, summarise

SUMMARY, FIGURE, REPORT, SELECTIONS = "summary.csv", "figure.png", "report.md", "selections.csv"
COMPARISONS = "comparisons.csv"
PUBLISHED = ("full", "gradient_only")  # the arms of the paper's own comparison

Trial = TypeVar("Trial")


def accuracy(study: Accuracy, runner: Runner) -> report.Table:
    """Runs the accuracy study; returns the table of its results."""
    rows = runner(study.cells())
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.summary_table(summary)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.accuracy_by_epoch(rows), folder / FIGURE)
    source = runner.load(study.workload()).source
    published = reference.load(study.dataset) if study.dataset in reference.DATASETS else None
    text = report.accuracy_report(rows, table, published, source)
    _write_report(study, folder, text)
    return table


def low_data(study: LowData, runner: Runner) -> report.Table:
    """Runs the low-data study; returns the table of its results."""
    regimes: tuple[Regime, ...] = ("equal epochs", "equal steps")
    plan = {regime: study.cells(regime) for regime in regimes}
    runner([cell for cells in plan.values() for cell in cells])
    rows = {regime: runner.records.rows(cells) for regime, cells in plan.items()}
    summary = pd.concat(
        [
            summarise(of_regime, ["arm", "fraction", "epochs"]).assign(regime=regime)
            for regime, of_regime in rows.items()
        ]
    )
    gains: dict[tuple[str, float], PairedComparison] = {
        (regime, fraction): compare_arms(
            of_regime[of_regime["fraction"] == fraction], *study.arms[:2]
        )
        for regime, of_regime in rows.items()
        for fraction in study.fractions
        # The whole training set is the same in both regimes: one comparison.
        if len(study.arms) > 1 and (fraction < 1 or regime == "equal epochs")
    }
    table = report.low_data_table(summary, gains, study.arms)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.low_data(summary, study.dataset, study.seeds), folder / FIGURE)
    source = runner.load(study.workload()).source
    _write_report(study, folder, report.low_data_report(study, table, gains, source))
    return table


def dynamics(study: Dynamics, runner: Runner) -> report.Table:
    """Runs the study of plasticity's dynamics; returns the table of its last epoch."""
    rows = runner(study.cells())
    published = reference.load(study.dataset) if study.dataset in reference.DATASETS else None
    table = report.dynamics_table(rows, published)
    folder = runner.records.folder
    summary = summarise(rows, ["arm", "learning_rate"])
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.dynamics(rows, published), folder / FIGURE)
    for arm in study.arms:
        figures.save(figures.layers(rows, arm), folder / f"layers-{arm}.png")
    source = runner.load(study.workload()).source
    _write_report(study, folder, report.dynamics_report(rows, table, published, source))
    return table


def noise(study: Noise, runner: Runner) -> report.Table:
    """Runs the study of noisy signals; returns the table of its results."""
    rates = _near_rates(study.arms)
    judged = _judge(
        runner,
        {
            (condition, arm, rate): study.search_cells(condition, arm, rate)
            for condition in study.conditions()
            for arm in study.arms
            for rate in rates[arm]
        },
    )
    chosen = {
        (condition, arm): best_learning_rate(
            {rate: judged[condition, arm, rate] for rate in rates[arm]}
        )
        for condition in study.conditions()
        for arm in study.arms
    }
    plan: dict[Workload, list[Cell]] = {condition: [] for condition in study.conditions()}
    for (condition, arm), rate in chosen.items():
        plan[condition] += study.cells(condition, arm, rate)
    rows = runner([cell for cells in plan.values() for cell in cells])
    summary = summarise(rows, ["label_noise", "batch_size", "arm", "learning_rate"])
    treatment, *controls = study.arms
    gains = {
        (condition, control): compare_arms(runner.records.rows(cells), treatment, control)
        for condition, cells in plan.items()
        for control in controls
    }
    table = report.noise_table(summary, gains)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.noise(summary, study.dataset, study.seeds), folder / FIGURE)
    source = runner.load(study.workload()).source
    _write_report(study, folder, report.noise_report(study, table, gains, source))
    return table


def tune(study: Tune, runner: Runner) -> report.Table:
    """Searches every arm's learning rate; returns the table of the selections."""
    rates = {arm: first_learning_rates(ARMS[arm].learning_rate) for arm in study.arms}
    while True:
        rows = runner(
            [cell for arm in study.arms for r in rates[arm] for cell in study.cells(arm, r)]
        )
        summary = summarise(rows, ["arm", "learning_rate"])
        found = {
            arm: dict(zip(of_arm["learning_rate"], of_arm["final_accuracy_mean"], strict=True))
            for arm, of_arm in summary.groupby("arm", sort=False)
        }
        more = {arm: next_learning_rate(found[arm], study.budget) for arm in study.arms}
        if not any(more.values()):
            break
        for arm, rate in more.items():
            rates[arm] += [rate] if rate else []
    selections = pd.DataFrame(
        [
            {
                "arm": arm,
                "learning_rate": (best := best_learning_rate(found[arm])),
                "validation_accuracy": found[arm][best],
                "trials": len(rates[arm]),
                "at_edge": best in (min(rates[arm]), max(rates[arm])),
            }
            for arm in study.arms
        ]
    )
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    write_atomically(folder / SELECTIONS, selections.to_csv(index=False))
    figures.save(figures.accuracy_by_learning_rate(summary, rows), folder / FIGURE)
    table = report.selection_table(selections)
    _write_report(study, folder, report.tune_report(rows, table, study.budget))
    return table


def verdict(study: Verdict, runner: Runner) -> report.Table:
    """Runs the fair test; returns the table of its hypotheses."""
    tuned = study.tuned or default_folder("tune", study.dataset)
    selected = dict(_read_selections(tuned, study.arms, by="arm").values())
    published = {
        competitor.arm: ARMS[competitor.arm].learning_rate
        for hypothesis in HYPOTHESES
        for competitor in (hypothesis.treatment, hypothesis.control)
        if competitor.rate == "published"
    }
    cells = {
        cell: None
        for rates in (selected, published)
        for arm, rate in rates.items()
        for cell in study.cells(arm, rate)
    }
    rows = runner(list(cells))
    by_seed = per_cell(rows).set_index(["arm", "learning_rate", "seed"]).sort_index()
    final = by_seed["final_accuracy"]

    def compare(hypothesis: Hypothesis) -> PairedComparison:
        treatment, control = (
            final.loc[competitor.arm, _rate(competitor, selected, published)]
            for competitor in (hypothesis.treatment, hypothesis.control)
        )
        return _paired(treatment, control)

    comparisons = [compare(hypothesis) for hypothesis in HYPOTHESES]
    adjusted = holm([comparison.p_value for comparison in comparisons]).tolist()
    full = Competitor("full")
    against_full = {
        arm: compare(Hypothesis(full, Competitor(arm), "")) for arm in study.arms if arm != full.arm
    }
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.hypothesis_table(HYPOTHESES, comparisons, adjusted)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    write_atomically(
        folder / COMPARISONS,
        report.comparison_frame(HYPOTHESES, comparisons, adjusted).to_csv(index=False),
    )
    figures.save(figures.differences(against_full, rows), folder / FIGURE)
    text = report.verdict_report(rows, summary, HYPOTHESES, comparisons, adjusted, against_full)
    _write_report(study, folder, text)
    return table


def selection(study: Selection, runner: Runner) -> report.Table:
    """Repeats the selection of the published settings; returns the table of what was selected."""
    judged = _judge(
        runner,
        {
            (family, *trial): cells
            for family in study.arms
            for trial, cells in study.trials(family).items()
        },
    )
    trials = pd.DataFrame(
        [(*trial, accuracy) for trial, accuracy in judged.items()],
        columns=["family", "arm", "learning_rate", "validation_accuracy"],
    )
    best = trials.fillna({"validation_accuracy": -np.inf}).groupby("family", sort=False)
    selections = trials.loc[best["validation_accuracy"].idxmax()]
    plan = {
        row["family"]: study.cells(row["arm"], row["learning_rate"])
        for row in selections.to_dict("records")
    }
    rows = runner([cell for cells in plan.values() for cell in cells])
    finals = {
        family: per_cell(runner.records.rows(cells)).set_index("seed")["final_accuracy"]
        for family, cells in plan.items()
    }
    first, *others = study.arms
    gains = {other: _paired(finals[first], finals[other]) for other in others}
    table = report.chosen_table(selections, finals, gains)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, trials.to_csv(index=False))
    write_atomically(folder / SELECTIONS, selections.to_csv(index=False))
    figures.save(figures.selection(trials, finals, study.dataset), folder / FIGURE)
    source = runner.load(study.workload()).source
    text = report.selection_report(study, trials, table, gains, rows, source)
    _write_report(study, folder, text)
    return table


def optimizers(study: Optimizers, runner: Runner) -> report.Table:
    """Runs the study of standard optimizers; returns the table of its results."""
    rates = _near_rates(study.arms)
    rows = runner(
        [cell for arm in study.arms for rate in rates[arm] for cell in study.cells(arm, rate)]
    )
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.summary_table(summary)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.optimizers(rows, summary), folder / FIGURE)
    source = runner.load(study.workload()).source
    _write_report(study, folder, report.optimizers_report(study, summary, table, source))
    return table


def transfer(study: Transfer, runner: Runner) -> report.Table:
    """Runs the study of settings tuned elsewhere; returns the table of its results."""
    folder = study.tuned or default_folder("selection", "mnist")
    selected = _read_selections(folder, study.arms, by="family")
    plan = {arm: study.cells(arm, ARMS[arm].learning_rate) for arm in PUBLISHED} | {
        f"selected {family}": study.cells(arm, rate) for family, (arm, rate) in selected.items()
    }
    rows = runner([cell for cells in plan.values() for cell in cells])
    finals = {
        name: per_cell(runner.records.rows(cells)).set_index("seed")["final_accuracy"]
        for name, cells in plan.items()
    }
    published = _paired(finals[PUBLISHED[0]], finals[PUBLISHED[1]])
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.summary_table(summary)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.transfer(rows), folder / FIGURE)
    source = runner.load(study.workload()).source
    text = report.transfer_report(study, rows, table, published, selected, source)
    _write_report(study, folder, text)
    return table


def design_space(study: DesignSpace, runner: Runner) -> report.Table:
    """Runs every variant beside its base; returns the table of their differences."""
    tuned = study.tuned()
    rates = _near_rates(tuned)
    judged = _judge(
        runner,
        {(arm, rate): study.search_cells(arm, rate) for arm in tuned for rate in rates[arm]},
    )
    chosen = _best_rates(judged, rates)
    chosen |= {arm: chosen[study.base(arm)] for arm in study.arms}
    rows = runner([cell for arm, rate in chosen.items() for cell in study.cells(arm, rate)])
    final = per_cell(rows).set_index(["arm", "seed"])["final_accuracy"].sort_index()
    # By its validation accuracy: no test image chooses what the others are compared with.
    strongest = max(study.baselines, key=lambda arm: np.nan_to_num(judged[arm, chosen[arm]]))
    gains = {
        arm: {
            control: _paired(final.loc[arm], final.loc[control])
            for control in (study.base(arm), strongest)
        }
        for arm in study.arms
    }
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.design_space_table(study, summary, gains, strongest)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.design_space(study, rows), folder / FIGURE)
    source = runner.load(study.workload()).source
    _write_report(
        study, folder, report.design_space_report(study, rows, table, gains, strongest, source)
    )
    return table


def text(study: Text, runner: Runner) -> report.Table:
    """Runs the study on text; returns the table of its results."""
    rates = _near_rates(study.arms)
    judged = _judge(
        runner,
        {(arm, rate): study.search_cells(arm, rate) for arm in study.arms for rate in rates[arm]},
    )
    chosen = _best_rates(judged, rates)
    rows = runner([cell for arm, rate in chosen.items() for cell in study.cells(arm, rate)])
    treatment, *controls = study.arms
    gains = {control: compare_arms(rows, treatment, control) for control in controls}
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.text_table(summary, gains)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.text(rows), folder / FIGURE)
    source = runner.load(study.workload()).source
    _write_report(study, folder, report.text_report(study, rows, table, gains, source))
    return table


def _near_rates(arms: Iterable[str]) -> dict[str, list[float]]:
    """Three learning rates an arm, around its default."""
    return {arm: near_learning_rates(ARMS[arm].learning_rate) for arm in arms}


def _judge(runner: Runner, trials: Mapping[Trial, list[Cell]]) -> dict[Trial, float]:
    """Mean final accuracy of each trial's training runs."""
    runner([cell for cells in trials.values() for cell in cells])
    return {
        trial: per_cell(runner.records.rows(cells))["final_accuracy"].mean()
        for trial, cells in trials.items()
    }


def _best_rates(
    judged: Mapping[tuple[str, float], float], rates: Mapping[str, list[float]]
) -> dict[str, float]:
    """The learning rate of each arm with the highest accuracy of those tried."""
    return {
        arm: best_learning_rate({rate: judged[arm, rate] for rate in tried})
        for arm, tried in rates.items()
    }


def _paired(treatment: pd.Series, control: pd.Series) -> PairedComparison:
    """Two arms' final accuracies by seed, on the seeds that both have."""
    seeds = treatment.index.intersection(control.index)
    return paired_comparison(treatment[seeds].to_numpy(), control[seeds].to_numpy())


def _write_report(study: Study, folder: Path, text: str) -> None:
    """Writes a report, whose first line says what is smaller than in the full protocol."""
    title, _, rest = text.partition("\n")
    write_atomically(folder / REPORT, "\n".join([title, *report.reductions(study), rest]))


def default_folder(study: str, dataset: str) -> Path:
    """Where a study's records go unless another folder is named."""
    return Path("results") / f"{study}-{dataset}"


def _rate(competitor: Competitor, selected: dict[str, float], published: dict[str, float]) -> float:
    return (selected if competitor.rate == "tuned" else published)[competitor.arm]


def _read_selections(
    folder: Path, wanted: Iterable[str], *, by: Literal["arm", "family"]
) -> dict[str, tuple[str, float]]:
    """The arm and learning rate that the study tune (by arm) or selection (by family) selected."""
    study = "tune" if by == "arm" else "selection"
    path = folder / SELECTIONS
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: run `python -m experiments {study}` first, on the data set that "
            "the settings are for; --tuned names its folder."
        )
    table = pd.read_csv(path)
    if by not in table:
        raise ConfigError(f"{path} has no column {by!r}: it is not of the study {study}.")
    selected = {row[by]: (row["arm"], row["learning_rate"]) for row in table.to_dict("records")}
    missing = [name for name in wanted if name not in selected]
    if missing:
        raise ConfigError(f"{path} has no learning rate for {', '.join(missing)}.")
    return {name: selected[name] for name in wanted}


STUDIES: dict[str, tuple[type[Study], Callable[..., report.Table]]] = {
    "accuracy": (Accuracy, accuracy),
    "low_data": (LowData, low_data),
    "dynamics": (Dynamics, dynamics),
    "noise": (Noise, noise),
    "tune": (Tune, tune),
    "verdict": (Verdict, verdict),
    "selection": (Selection, selection),
    "optimizers": (Optimizers, optimizers),
    "transfer": (Transfer, transfer),
    "design_space": (DesignSpace, design_space),
    "text": (Text, text),
}
