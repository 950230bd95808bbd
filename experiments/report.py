"""Reports in Markdown, written from the records."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments.cells import Workload
from experiments.configs import (
    DesignSpace,
    LowData,
    Noise,
    Optimizers,
    Selection,
    Study,
    Text,
    Transfer,
)
from experiments.data import DATASETS
from experiments.hypotheses import Competitor, Hypothesis
from experiments.optimizers import ARMS
from experiments.search import near_learning_rates
from experiments.statistics import (
    ALPHA,
    MARGIN,
    PairedComparison,
    Verdict,
    holm,
    sentence,
    smallest_p,
    verdict,
)
from experiments.summary import compare_arms, per_cell

Table = list[list[str]]
AT_AN_END = "†: the best of the three learning rates is at an end; a better one may lie beyond."


def markdown_table(table: Table) -> str:
    """A table with a header row as Markdown.

    >>> print(markdown_table([["arm", "n"], ["SGD", "5"]]))
    | arm | n |
    |---|---|
    | SGD | 5 |
    """
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "|" + "|".join(cells) + "|" if cells[0] == "---" else "| " + " | ".join(cells) + " |"
        for cells in lines
    )


def reductions(study: Study) -> list[str]:
    """A paragraph on what is smaller than in the full protocol; nothing where nothing is.

    >>> reductions(LowData(seeds=3))
    ['', '**Not the full protocol**, whose values are in brackets: seeds 3 (10).']
    """
    changes = [
        f"{name.replace('_', ' ')} {_value(ours)} ({_value(full)})"
        for name, (ours, full) in study.reductions().items()
    ]
    if not changes:
        return []
    return ["", f"**Not the full protocol**, whose values are in brackets: {', '.join(changes)}."]


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def mean_and_sd(mean: float, sd: float, digits: int) -> str:
    """``mean ± sd``, or the mean alone where one seed gives no deviation."""
    text = f"{mean:.{digits}f}"
    return text if math.isnan(sd) else f"{text} ± {sd:.{digits}f}"


def summary_table(summary: pd.DataFrame) -> Table:
    """Final and best results of every arm, as readers should see them."""
    table = [["arm", "rate", "final %", "best %", "final loss", "seeds", "s/seed"]]
    for row in summary.to_dict("records"):
        diverged = (
            f" ({row['diverged']} diverged, first in epoch {row['diverged_epoch']})"
            if row["diverged"]
            else ""
        )
        table.append(
            [
                ARMS[row["arm"]].label,
                f"{row['learning_rate']:g}",
                mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2),
                mean_and_sd(row["best_accuracy_mean"], row["best_accuracy_sd"], 2),
                mean_and_sd(row["final_loss_mean"], row["final_loss_sd"], 4),
                f"{row['n']}{diverged}",
                f"{row['seconds_mean']:.1f}",
            ]
        )
    return table


def accuracy_report(
    rows: pd.DataFrame, table: Table, published: pd.DataFrame | None, source: str
) -> str:
    """The report of the accuracy study; ``published`` are trajectories to compare with."""
    first = rows.iloc[0]
    return "\n".join(
        [
            f"# Accuracy by epoch: {DATASETS[first['dataset']].title}",
            "",
            f"{first['epochs']} epochs, batches of {first['batch_size']}, "
            f"{rows['seed'].nunique()} seeds an arm, paired: a seed gives every arm the same "
            "initial parameters, data order and dropout masks. Evaluated on the whole test set "
            f"after each epoch. Data: {source}.",
            "",
            markdown_table(table),
            "",
            "Mean ± standard deviation over seeds. *rate*: learning rate. *final %*, *best %*: "
            "test accuracy after the last epoch, and the highest of a run's epochs, which is "
            "picked on the test set. *final loss*: mean cross-entropy on the test set. *s/seed*: "
            "seconds of training a seed, without compilation and evaluation, all seeds training "
            "together.",
            "",
            *_beside_the_first(rows),
            *_beside_published(rows, published),
            "![test accuracy by epoch](figure.png)",
            "",
            "No learning rate was tuned here: each arm runs at its default or at the one given.",
            "",
        ]
    )


def _beside_the_first(rows: pd.DataFrame) -> list[str]:
    """The first arm's final accuracy beside every other's, paired by seed."""
    first, *others = rows["arm"].unique()
    if not others or rows["seed"].nunique() < 2:
        return []
    gains = [compare_arms(rows, first, other) for other in others]
    adjusted = holm([gain.p_value for gain in gains]).tolist()
    return [
        "After the last epoch, p one-sided by sign flips, adjusted by Holm:",
        "",
        *(
            "- " + sentence(ARMS[first].label, ARMS[other].label, gain, p)
            for other, gain, p in zip(others, gains, adjusted, strict=True)
        ),
        "",
    ]


def _beside_published(rows: pd.DataFrame, published: pd.DataFrame | None) -> list[str]:
    """Final accuracies beside the published implementation's, where it was run by this protocol."""
    if published is None:
        return []
    lines = []
    for arm in rows["arm"].unique():
        ours, theirs = (
            100 * frame[(frame["arm"] == arm) & (frame["epoch"] == 10)]["test_accuracy"]
            for frame in (rows, published)
        )
        if len(ours) and len(theirs):
            apart = ours.mean() - theirs.mean()
            lines.append(
                f"- {ARMS[arm].label}: {ours.mean():.2f}% here ({len(ours)} seeds), "
                f"{theirs.mean():.2f}% there ({len(theirs)} seeds), {apart:+.2f} points apart."
            )
    return (
        ["After 10 epochs, beside the published implementation:", "", *lines, ""] if lines else []
    )


def selection_table(selections: pd.DataFrame) -> Table:
    """What the search for the learning rate selected."""
    table = [["arm", "rate", "validation %", "rates tried", "at an edge"]]
    for row in selections.to_dict("records"):
        table.append(
            [
                ARMS[row["arm"]].label,
                f"{row['learning_rate']:g}",
                f"{row['validation_accuracy']:.2f}",
                f"{row['trials']}",
                "yes" if row["at_edge"] else "no",
            ]
        )
    return table


def tune_report(rows: pd.DataFrame, table: Table, budget: int) -> str:
    """The report of the study tune."""
    first = rows.iloc[0]
    beyond = [row[0] for row in table[1:] if int(row[3]) > budget]
    return "\n".join(
        [
            f"# Learning rates: {DATASETS[first['dataset']].title}",
            "",
            f"{budget} learning rates an arm, half a decade apart, {rows['seed'].nunique()} seeds "
            f"each, {first['epochs']} epochs, batches of {first['batch_size']}. Selected by mean "
            "final accuracy on a sixth of the training images that was held out; no test image was "
            "looked at.",
            "",
            "The best rate still lay at the edge of the budget and the search went on for: "
            f"{', '.join(beyond) if beyond else 'no arm'}.",
            "",
            markdown_table(table),
            "",
            "![validation accuracy by learning rate](figure.png)",
            "",
        ]
    )


def comparison_frame(
    hypotheses: Sequence[Hypothesis],
    comparisons: Sequence[PairedComparison],
    adjusted: Sequence[float],
) -> pd.DataFrame:
    """Every hypothesis with its statistics, for the records."""
    return pd.DataFrame(
        [
            {
                "treatment": hypothesis.treatment.arm,
                "control": hypothesis.control.arm,
                "learning_rates": hypothesis.treatment.rate,
                **dataclasses.asdict(comparison),
                "p_adjusted": p,
                "verdict": str(verdict(comparison, p)),
            }
            for hypothesis, comparison, p in zip(hypotheses, comparisons, adjusted, strict=True)
        ]
    )


def hypothesis_table(
    hypotheses: Sequence[Hypothesis],
    comparisons: Sequence[PairedComparison],
    adjusted: Sequence[float],
) -> Table:
    """Every hypothesis with its difference, interval, adjusted p and verdict."""
    header = ["full better than", "Δ points", "95% interval", "d_z", "won", "p", "verdict"]
    table = [header]
    for hypothesis, comparison, p in zip(hypotheses, comparisons, adjusted, strict=True):
        untuned = " (published rates)" if hypothesis.treatment.rate == "published" else ""
        table.append(
            [
                ARMS[hypothesis.control.arm].label + untuned,
                f"{comparison.mean:+.2f}",
                f"{comparison.interval_low:+.2f} to {comparison.interval_high:+.2f}",
                f"{comparison.cohen_dz:+.2f}",
                f"{comparison.share_won:.0%} of {comparison.n}",
                f"{p:.4f}",
                str(verdict(comparison, p)),
            ]
        )
    return table


def verdict_report(
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    hypotheses: Sequence[Hypothesis],
    comparisons: Sequence[PairedComparison],
    adjusted: Sequence[float],
    against_full: dict[str, PairedComparison],
) -> str:
    """The report of the fair test, verdict sentences included."""
    first = rows.iloc[0]
    sentences = [
        f"{i}. *{hypothesis.question}* "
        + sentence(_name(hypothesis.treatment), _name(hypothesis.control), comparison, p)
        for i, (hypothesis, comparison, p) in enumerate(
            zip(hypotheses, comparisons, adjusted, strict=True), start=1
        )
    ]
    explored = [["arm", "Δ points", "95% interval", "won"]]
    for arm, comparison in sorted(against_full.items(), key=lambda item: item[1].mean):
        explored.append(
            [
                ARMS[arm].label,
                f"{comparison.mean:+.2f}",
                f"{comparison.interval_low:+.2f} to {comparison.interval_high:+.2f}",
                f"{comparison.share_won:.0%} of {comparison.n}",
            ]
        )
    return "\n".join(
        [
            f"# The fair test: {DATASETS[first['dataset']].title}",
            "",
            f"{first['epochs']} epochs, batches of {first['batch_size']}; each arm at the learning "
            "rate that the study tune selected for it on held-out training images, then run on "
            "fresh seeds and evaluated on the test images. Final accuracy after the last epoch, "
            "differences paired by seed.",
            "",
            "## Verdict",
            "",
            *sentences,
            "",
            f"p is one-sided, by sign flips of the paired differences, and adjusted by Holm over "
            f"the {len(comparisons)} hypotheses, which were written down before the run. "
            f'"No difference of practical size" means within ±{MARGIN} points by two one-sided '
            "t-tests.",
            "",
            markdown_table(hypothesis_table(hypotheses, comparisons, adjusted)),
            "",
            "## Every arm against the full method, all tuned",
            "",
            "Exploration, without adjustment: full minus arm.",
            "",
            markdown_table(explored),
            "",
            "![differences](figure.png)",
            "",
            "## Results of every arm",
            "",
            markdown_table(summary_table(summary)),
            "",
        ]
    )


def _name(competitor: Competitor) -> str:
    published = ", published rate" if competitor.rate == "published" else ", tuned"
    return ARMS[competitor.arm].label + published


def dynamics_table(rows: pd.DataFrame, published: pd.DataFrame | None) -> Table:
    """What plasticity did in the last epoch, beside the published implementation."""
    columns = {
        "alpha_mean": "mean α",
        "alpha_std": "sd α",
        "alpha_min": "min α",
        "alpha_max": "max α",
        "raw_gradient_norm": "raw gradient",
        "raw_update_norm": "raw update",
        "effective_update_norm": "effective update",
    }
    table = [["arm", "run", *columns.values()]]
    for arm in rows["arm"].unique():
        for run, frame in (("ours", rows), ("published", published)):
            if frame is None or arm not in set(frame["arm"]):
                continue
            last = frame[(frame["arm"] == arm) & (frame["epoch"] == rows["epoch"].max())]
            means = last[list(columns)].mean()
            seeds = last["seed"].nunique()
            table.append([ARMS[arm].label, f"{run}, {seeds} seeds", *(f"{m:.3f}" for m in means)])
    return table


def dynamics_report(
    rows: pd.DataFrame, table: Table, published: pd.DataFrame | None, source: str
) -> str:
    """The report of the study of plasticity's dynamics."""
    first = rows.iloc[0]
    negative = []
    for arm in rows["arm"].unique():
        of_arm = rows[rows["arm"] == arm]
        share = 100 * of_arm.groupby("epoch")["fraction_negative"].mean()
        lowest = of_arm["alpha_min"].min()
        negative.append(
            f"- {ARMS[arm].label}: at most {share.max():.2g}% of entries in an epoch "
            f"(epoch {share.idxmax()}); the smallest α seen is {lowest:.3f}."
            if share.max() > 0
            else f"- {ARMS[arm].label}: none; the smallest α seen is {lowest:.3f}."
        )
    distances = []
    if published is not None:
        for column, what in (
            ("alpha_mean", "mean α"),
            ("effective_update_norm", "the norm of the effective update"),
            ("raw_gradient_norm", "the norm of the raw gradient"),
        ):
            ours = rows.groupby(["arm", "epoch"])[column].mean()
            theirs = published.groupby(["arm", "epoch"])[column].mean()
            apart = ((ours - theirs) / theirs).abs().max()
            distances.append(f"{what} by at most {100 * apart:.1f}%")
    return "\n".join(
        [
            f"# What plasticity does: {DATASETS[first['dataset']].title}",
            "",
            f"{first['epochs']} epochs, batches of {first['batch_size']}, "
            f"{rows['seed'].nunique()} seeds an arm, learning rate {first['learning_rate']:g}. "
            f"Data: {source}.",
            "",
            "Last epoch, mean over seeds; norms are the root of the summed squares over the "
            "epoch's steps.",
            "",
            markdown_table(table),
            "",
            *(
                [
                    "Over all epochs, the means over seeds of ours and of the published "
                    f"implementation differ in {', in '.join(distances)}.",
                    "",
                ]
                if distances
                else []
            ),
            "## Ascent directions",
            "",
            "Where α is negative, a coordinate is moved up its gradient. It needs γ above 1 and an "
            "entry whose mixed signal is far below its gradient signal.",
            "",
            *negative,
            "",
            "![dynamics](figure.png)",
            "",
            *(f"![α by layer, {arm}](layers-{arm}.png)\n" for arm in rows["arm"].unique()),
        ]
    )


def low_data_table(
    summary: pd.DataFrame,
    gains: Mapping[tuple[str, float], PairedComparison],
    arms: Sequence[str],
) -> Table:
    """Final accuracy of every arm by regime and share, and the first arm's gain over the second."""
    table = [["regime", "images", "epochs", *(ARMS[arm].label for arm in arms), "Δ points", "95%"]]
    conditions = summary[["regime", "fraction", "epochs"]].drop_duplicates()
    for condition in conditions.to_dict("records"):
        regime, fraction, epochs = condition["regime"], condition["fraction"], condition["epochs"]
        here = (summary["regime"] == regime) & (summary["fraction"] == fraction)
        by_arm = {row["arm"]: row for row in summary[here].to_dict("records")}
        gain = gains.get((regime, fraction))
        accuracies = [
            mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2)
            for row in (by_arm[arm] for arm in arms)
        ]
        table.append([regime, f"{fraction:.0%}", f"{epochs}", *accuracies, *_gain(gain)])
    return table


def low_data_report(
    study: LowData,
    table: Table,
    gains: Mapping[tuple[str, float], PairedComparison],
    source: str,
) -> str:
    """The report of the low-data study."""
    rates = ", ".join(f"{ARMS[arm].label} {ARMS[arm].learning_rate:g}" for arm in study.arms)
    names = [ARMS[arm].label for arm in study.arms]
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist() if gains else []
    sentences = [
        f"- {regime}, {fraction:.0%} of the images: " + sentence(names[0], names[1], gain, p)
        for ((regime, fraction), gain), p in zip(gains.items(), adjusted, strict=True)
    ]
    return "\n".join(
        [
            f"# Little data: {DATASETS[study.dataset].title}",
            "",
            f"{study.seeds} seeds an arm, paired; subsets are nested and balanced over the "
            f"classes. Equal epochs: {study.epochs} passes over what is there. Equal steps: as "
            "many steps as the whole training set takes. Learning rates are the arms' defaults, "
            f"untuned: {rates}. Data: {source}.",
            "",
            markdown_table(table),
            "",
            "Final test accuracy in percent, mean ± standard deviation over seeds; Δ is the first "
            "arm's minus the second's, paired by seed, with its BCa interval.",
            "",
            *sentences,
            "",
            "p is one-sided, by sign flips, adjusted by Holm over these comparisons.",
            "",
            "![final accuracy and loss by share of the training images](figure.png)",
            "",
        ]
    )


def noise_table(
    summary: pd.DataFrame, gains: Mapping[tuple[Workload, str], PairedComparison]
) -> Table:
    """Final accuracy of every arm in each condition, and what the first arm gains on it."""
    by_condition = {
        (condition.label_noise, condition.batch_size, arm): gain
        for (condition, arm), gain in gains.items()
    }
    table = [["wrong labels", "batch", "arm", "rate", "final %", "Δ points", "95% interval"]]
    for row in summary.to_dict("records"):
        gain = by_condition.get((row["label_noise"], row["batch_size"], row["arm"]))
        table.append(
            [
                f"{row['label_noise']:.0%}",
                f"{row['batch_size']}",
                ARMS[row["arm"]].label,
                _near_rate(row["arm"], row["learning_rate"]),
                mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2),
                *_gain(gain),
            ]
        )
    return table


def noise_report(
    study: Noise,
    table: Table,
    gains: Mapping[tuple[Workload, str], PairedComparison],
    source: str,
) -> str:
    """The report of the study of noisy signals."""
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist()
    sentences = [
        f"- {condition.label_noise:.0%} wrong labels, batches of {condition.batch_size}: "
        + sentence(ARMS[study.arms[0]].label, ARMS[arm].label, gain, p)
        for ((condition, arm), gain), p in zip(gains.items(), adjusted, strict=True)
    ]
    return "\n".join(
        [
            f"# Noisy signals: {DATASETS[study.dataset].title}",
            "",
            f"{study.epochs} epochs, {study.seeds} seeds an arm, paired. In each condition every "
            "arm runs at the best of three learning rates around its default, chosen by "
            f"other seeds ({study.tuning_seeds} a rate) on held-out training images with the same "
            f"noise. Test labels are never changed. Data: {source}.",
            "",
            markdown_table(table),
            "",
            f"Δ is {ARMS[study.arms[0]].label} minus the row's arm, paired by seed. {AT_AN_END}",
            "",
            *sentences,
            "",
            "p is one-sided, by sign flips, adjusted by Holm over all these comparisons.",
            "",
            "![final accuracy by label noise and batch size](figure.png)",
            "",
        ]
    )


def chosen_table(
    selections: pd.DataFrame,
    finals: Mapping[str, pd.Series],
    gains: Mapping[str, PairedComparison],
) -> Table:
    """What was selected in each family, its accuracy on fresh seeds, the first family's gain."""
    table = [["family", "selected", "rate", "validation %", "test %", "Δ points", "95% interval"]]
    for row in selections.to_dict("records"):
        final = finals[row["family"]]
        table.append(
            [
                ARMS[row["family"]].label,
                ARMS[row["arm"]].label,
                f"{row['learning_rate']:g}",
                f"{row['validation_accuracy']:.2f}",
                mean_and_sd(final.mean(), final.std(), 2),
                *_gain(gains.get(row["family"])),
            ]
        )
    return table


def _near_rate(arm: str, learning_rate: float) -> str:
    """The best of the three learning rates around an arm's default, marked if it is at an end.

    >>> [_near_rate("sgd", rate) for rate in (0.03, 0.1, 0.3)]
    ['0.03†', '0.1', '0.3†']
    """
    low, _, high = near_learning_rates(ARMS[arm].learning_rate)
    return f"{learning_rate:g}{'†' if learning_rate in (low, high) else ''}"


def _gain(gain: PairedComparison | None) -> list[str]:
    """A difference and its interval, or two empty cells."""
    if gain is None:
        return ["", ""]
    return [f"{gain.mean:+.2f}", f"{gain.interval_low:+.2f} to {gain.interval_high:+.2f}"]


def selection_report(
    study: Selection,
    trials: pd.DataFrame,
    table: Table,
    gains: Mapping[str, PairedComparison],
    rows: pd.DataFrame,
    source: str,
) -> str:
    """The report of the selection study."""
    lines = []
    if "full" in study.arms:
        of_full = trials[trials["family"] == "full"].sort_values(
            "validation_accuracy", ascending=False, ignore_index=True
        )
        published = of_full[(of_full["arm"] == "full") & (of_full["learning_rate"] == 0.1)]
        (rank,) = published.index + 1
        behind = of_full["validation_accuracy"].max() - published["validation_accuracy"].item()
        lines = [
            f"The published configuration (η = 0.1, γ = 2, 2 warm-up epochs) is number {rank} of "
            f"the full method's {len(of_full)}, {behind:.2f} points behind the first.",
            "",
        ]
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist() if gains else []
    sentences = [
        "- "
        + sentence(
            f"{ARMS[study.arms[0]].label}, selected", f"{ARMS[family].label}, selected", gain, p
        )
        for (family, gain), p in zip(gains.items(), adjusted, strict=True)
    ]
    return "\n".join(
        [
            f"# The selection of the published settings, repeated: {DATASETS[study.dataset].title}",
            "",
            "36 trials a family: for the full method the published grid of learning rates, γ and "
            "warm-ups, for each other family twelve learning rates and three values of one more "
            f"setting. {study.epochs} epochs, seeds a trial: {study.tuning_seeds}, judged on a "
            "sixth of the training images, held out. The published selection was made on test "
            f"images. What was selected then ran on {rows['seed'].nunique()} fresh seeds and the "
            f"test images. Data: {source}.",
            "",
            *lines,
            markdown_table(table),
            "",
            f"Δ is {ARMS[study.arms[0]].label} minus the row's family, paired by seed.",
            "",
            *sentences,
            "",
            "p is one-sided, by sign flips, adjusted by Holm over these comparisons.",
            "",
            "![all trials, and the selected ones](figure.png)",
            "",
        ]
    )


def optimizers_report(study: Optimizers, summary: pd.DataFrame, table: Table, source: str) -> str:
    """The report of the study of standard optimizers."""
    best = summary.loc[summary.groupby("arm", sort=False)["final_accuracy_mean"].idxmax()]
    ordered = best.sort_values("final_accuracy_mean", ascending=False).to_dict("records")
    lines = [
        f"{place}. {ARMS[row['arm']].label} at {_near_rate(row['arm'], row['learning_rate'])}: "
        f"{mean_and_sd(row['final_accuracy_mean'], row['final_accuracy_sd'], 2)}%"
        for place, row in enumerate(ordered, start=1)
    ]
    return "\n".join(
        [
            f"# Standard optimizers: {DATASETS[study.dataset].title}",
            "",
            f"{_protocol(study)} {study.seeds} seeds, three learning rates an arm, half a decade "
            f"apart. Data: {source}.",
            "",
            markdown_table(table),
            "",
            "Every arm at its best of the three rates, which is picked on the test images here, as "
            "in the paper's figure; no claim rests on it:",
            "",
            *lines,
            "",
            AT_AN_END,
            "",
            "![accuracy and training loss by epoch, final and best accuracy](figure.png)",
            "",
        ]
    )


def _protocol(study: Optimizers | Transfer | DesignSpace) -> str:
    """Model, epochs and batch size in a sentence."""
    workload = study.workload()
    model = {
        "resnet18": f"ResNet-18 of width {workload.width}, random crops and flips",
        "mlp": "the MLP",
        "transformer": "the transformer",
    }[workload.model]
    return f"{model[0].upper()}{model[1:]}; {study.epochs} epochs, batches of {study.batch_size}."


def transfer_report(
    study: Transfer,
    rows: pd.DataFrame,
    table: Table,
    published: PairedComparison,
    selected: Mapping[str, tuple[str, float]],
    source: str,
) -> str:
    """The report of the study of settings tuned elsewhere."""
    settings = [
        f"- {ARMS[family].label}: {ARMS[arm].label} at {rate:g}"
        for family, (arm, rate) in selected.items()
    ]
    diverged = int(per_cell(rows)["diverged"].sum())
    return "\n".join(
        [
            f"# Settings tuned on MNIST: {DATASETS[study.dataset].title}",
            "",
            f"{_protocol(study)} {study.seeds} seeds. The published settings (η = 0.1), and those "
            f"that the study selection chose on MNIST:",
            "",
            *settings,
            "",
            f"Data: {source}.",
            "",
            markdown_table(table),
            "",
            "At the published settings: "
            + sentence(
                ARMS["full"].label, ARMS["gradient_only"].label, published, published.p_value
            ),
            "",
            f"{diverged or 'No'} run{'' if diverged == 1 else 's'} diverged.",
            "",
            "![accuracy and loss by epoch](figure.png)",
            "",
        ]
    )


def design_space_table(
    study: DesignSpace,
    summary: pd.DataFrame,
    gains: Mapping[str, Mapping[str, PairedComparison]],
    strongest: str,
) -> Table:
    """Every arm's final accuracy, best first, and what a variant gains on its base and baseline."""
    baseline = ARMS[strongest].label
    table = [["arm", "rate", "final %", "base", "Δ base", "95% interval", f"Δ {baseline}", "95%"]]
    for row in summary.sort_values("final_accuracy_mean", ascending=False).to_dict("records"):
        arm = row["arm"]
        of_arm = gains.get(arm, {})
        base = study.base(arm) if of_arm else ""
        table.append(
            [
                ARMS[arm].label,
                _near_rate(base or arm, row["learning_rate"]),
                mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2),
                ARMS[base].label if base else "",
                *_gain(of_arm.get(base)),
                *_gain(of_arm.get(strongest)),
            ]
        )
    return table


def design_space_report(
    study: DesignSpace,
    rows: pd.DataFrame,
    table: Table,
    gains: Mapping[str, Mapping[str, PairedComparison]],
    strongest: str,
    source: str,
) -> str:
    """The report of the design space."""
    on_base = {arm: of_arm[study.base(arm)] for arm, of_arm in gains.items()}
    adjusted = holm([gain.p_value for gain in on_base.values()])
    better = [
        ARMS[arm].label
        for (arm, gain), p in zip(on_base.items(), adjusted.tolist(), strict=True)
        if verdict(gain, p) is Verdict.BETTER
    ]
    above = sum(of_arm[strongest].mean > 0 for of_arm in gains.values())
    seeds = rows["seed"][rows["split"] == "test"].nunique()
    floor = smallest_p(seeds)
    return "\n".join(
        [
            f"# The design space: {DATASETS[study.dataset].title}",
            "",
            f"{_protocol(study)} {seeds} seeds. Each base and baseline runs at the best of three "
            f"learning rates, chosen by other seeds ({study.tuning_seeds} a rate) on held-out "
            "training images; a variant runs at its base's. "
            f"Data: {source}.",
            "",
            f"Of {len(gains)} variants, {len(better) or 'none'} "
            f"{'is' if len(better) == 1 else 'are'} shown to be better than the base"
            f"{': ' + ', '.join(better) if better else ''} (one-sided sign flips, Holm; with "
            f"{seeds} seeds no p is below {floor:.2g} before adjustment"
            f"{', so that nothing can be shown' if floor * len(gains) > ALPHA else ''}). "
            f"{above} of them are above {ARMS[strongest].label}, the baseline with the highest "
            "validation accuracy, in the mean.",
            "",
            markdown_table(table),
            "",
            AT_AN_END,
            "",
            "![final accuracy of every variant](figure.png)",
            "",
        ]
    )


def text_table(summary: pd.DataFrame, gains: Mapping[str, PairedComparison]) -> Table:
    """Final accuracy and loss of every arm, and what the first one gains on it."""
    table = [["arm", "rate", "final %", "final loss", "Δ points", "95% interval"]]
    for row in summary.to_dict("records"):
        table.append(
            [
                ARMS[row["arm"]].label,
                _near_rate(row["arm"], row["learning_rate"]),
                mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2),
                mean_and_sd(row["final_loss_mean"], row["final_loss_sd"], 4),
                *_gain(gains.get(row["arm"])),
            ]
        )
    return table


def text_report(
    study: Text,
    rows: pd.DataFrame,
    table: Table,
    gains: Mapping[str, PairedComparison],
    source: str,
) -> str:
    """The report of the study on text."""
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist() if gains else []
    name = ARMS[study.arms[0]].label
    sentences = [
        "- " + sentence(name, ARMS[arm].label, gain, p)
        for (arm, gain), p in zip(gains.items(), adjusted, strict=True)
    ]
    return "\n".join(
        [
            f"# Text: {DATASETS[study.dataset].title}",
            "",
            "A causal transformer that predicts the next character. "
            f"{study.epochs} epochs, batches of {study.batch_size} windows, "
            f"{rows['seed'].nunique()} seeds an arm, paired. Every arm runs at the best of three "
            "learning rates around its default, chosen by other seeds "
            f"({study.tuning_seeds} a rate) on held-out training text. Data: {source}.",
            "",
            markdown_table(table),
            "",
            "*final %*: next characters predicted on test text. *final loss*: nats a character. "
            f"Δ is {name} minus the row's arm, paired by seed. {AT_AN_END}",
            "",
            *sentences,
            "",
            "p is one-sided, by sign flips, adjusted by Holm over these comparisons.",
            "",
            "![test loss by epoch and final accuracy](figure.png)",
            "",
        ]
    )
