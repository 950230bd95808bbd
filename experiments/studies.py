"""The studies: which cells each one runs, and what it makes of their records."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from experiments import figures, reference, report
from experiments.configs import (
    Accuracy,
    Cell,
    ConfigError,
    Dynamics,
    LowData,
    Noise,
    Regime,
    Study,
    Tune,
    Verdict,
    Workload,
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
    write_atomically(folder / REPORT, text)
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
    write_atomically(folder / REPORT, report.low_data_report(study, table, gains, source))
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
    write_atomically(folder / REPORT, report.dynamics_report(rows, table, published, source))
    return table


def noise(study: Noise, runner: Runner) -> report.Table:
    """Runs the study of noisy signals; returns the table of its results."""
    rates = {arm: near_learning_rates(ARMS[arm].learning_rate) for arm in study.arms}
    trials = {
        (condition, arm, rate): study.search_cells(condition, arm, rate)
        for condition in study.conditions()
        for arm in study.arms
        for rate in rates[arm]
    }
    runner([cell for cells in trials.values() for cell in cells])
    judged = {
        trial: per_cell(runner.records.rows(cells))["final_accuracy"].mean()
        for trial, cells in trials.items()
    }
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
    write_atomically(folder / REPORT, report.noise_report(study, table, gains, source))
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
    write_atomically(folder / REPORT, report.tune_report(rows, table, study.budget))
    return table


def verdict(study: Verdict, runner: Runner) -> report.Table:
    """Runs the fair test; returns the table of its hypotheses."""
    selected = _read_selections(study.tuned or default_folder("tune", study.dataset), study.arms)
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
        seeds = treatment.index.intersection(control.index)
        return paired_comparison(treatment[seeds].to_numpy(), control[seeds].to_numpy())

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
    write_atomically(folder / REPORT, text)
    return table


def default_folder(study: str, dataset: str) -> Path:
    """Where a study's records go unless another folder is named."""
    return Path("results") / f"{study}-{dataset}"


def _rate(competitor: Competitor, selected: dict[str, float], published: dict[str, float]) -> float:
    return (selected if competitor.rate == "tuned" else published)[competitor.arm]


def _read_selections(folder: Path, arms: tuple[str, ...]) -> dict[str, float]:
    """The learning rates that the study tune selected."""
    path = folder / SELECTIONS
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: the fair test needs the learning rates of "
            "`python -m experiments tune`, run for the same data set; --tuned names its folder."
        )
    table = pd.read_csv(path)
    selected = dict(zip(table["arm"], table["learning_rate"], strict=True))
    missing = [arm for arm in arms if arm not in selected]
    if missing:
        raise ConfigError(f"{path} has no learning rate for {', '.join(missing)}.")
    return {arm: selected[arm] for arm in arms}


STUDIES: dict[str, tuple[type[Study], Callable[..., report.Table]]] = {
    "accuracy": (Accuracy, accuracy),
    "low_data": (LowData, low_data),
    "dynamics": (Dynamics, dynamics),
    "noise": (Noise, noise),
    "tune": (Tune, tune),
    "verdict": (Verdict, verdict),
}
