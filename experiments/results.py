"""The page of results: what the paper claims beside what was measured, from committed records."""

import dataclasses
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments.cells import RESNET_WIDTH
from experiments.data import DATASETS
from experiments.optimizers import ARMS, DESIGN_SPACE
from experiments.records import MANIFEST, RUNS, read_runs, write_atomically
from experiments.report import Table, markdown_table
from experiments.statistics import (
    PairedComparison,
    Verdict,
    holm,
    paired_comparison,
    verdict,
)
from experiments.studies import COMPARISONS, PUBLISHED, SELECTIONS
from experiments.summary import compare_arms, per_cell, summarise

CONTROLS = ("gradient_only_wide", "permuted", "random", "norm_matched")
AGREEMENT = {
    Verdict.BETTER: "yes",
    Verdict.WORSE: "no: the opposite",
    Verdict.NO_PRACTICAL_DIFFERENCE: "no: no difference of practical size",
    Verdict.NOT_SHOWN: "not shown",
}
PAGE = "README.md"


@dataclasses.dataclass(frozen=True)
class Result:
    """The records of one study on one data set."""

    folder: Path
    study: str
    dataset: str

    def rows(self) -> pd.DataFrame:
        """A row a run and epoch."""
        return read_runs(self.folder / RUNS)

    def reduced(self) -> str:
        """What says in the table that a study was smaller than its full protocol."""
        manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        settings = manifest["configuration"]
        width, share = settings.get("width", RESNET_WIDTH), settings.get("fraction", 1)
        if (width, share) == (RESNET_WIDTH, 1):
            return ""
        model = f"width {width}, " if width != RESNET_WIDTH else ""
        return f" ({model}{share:.0%} of the images, {settings['epochs']} epochs)"

    def comparisons(self) -> pd.DataFrame:
        """A row a hypothesis, for studies that have them."""
        return pd.read_csv(self.folder / COMPARISONS)


def find(folder: Path) -> list[Result]:
    """The studies in a folder's subfolders, by name."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}"))
    found = []
    for path in manifests:
        manifest = json.loads(path.read_text("utf-8"))
        if "study" in manifest:  # benchmarks leave their manifests there too
            dataset = manifest["configuration"]["dataset"]
            found.append(Result(path.parent, manifest["study"], dataset))
    return found


def page(folder: Path) -> str:
    """The page as Markdown, from the records below ``folder``."""
    results = find(folder)
    table: Table = [["paper", "claim", "data set", "measured here", "agrees"]]
    table += [line for result in results for line in _lines(result)]
    links = [
        f"- [{result.folder.name}]({result.folder.name}/report.md): {result.study}, "
        f"{DATASETS[result.dataset].title}"
        for result in results
    ]
    return "\n".join(
        [
            "# Results",
            "",
            *headline(folder),
            "",
            "What the paper claims beside what this project measured; made by "
            "`python -m experiments.results`, from the records in these folders alone.",
            "",
            markdown_table(table),
            "",
            "Δ is in percentage points of final test accuracy, paired by seed, with its 95% BCa "
            "interval; p is one-sided, by sign flips.",
            "",
            *_verdict(results),
            "## Reports",
            "",
            *links,
            "",
        ]
    )


def headline(folder: Path) -> list[str]:
    """The three lines for the project's README, of the first data set with a fair test.

    They say whether the published comparison reproduces, whether α does more than change the size
    of the step, and how the strongest tuned baseline compares.
    """
    for result in find(folder):
        if result.study == "verdict":
            title = DATASETS[result.dataset].title
            rows = {row["control"]: row for row in result.comparisons().to_dict("records")}
            rival = min(
                (row for arm, row in rows.items() if arm not in _ANSWERS),
                key=lambda row: row["mean"],
            )
            return [
                f"- {title}, {rows[control]['n']} seeds: {_answer(rows[control])}."
                for control in ("gradient_only", "norm_matched")
            ] + [
                f"- {title}, {rival['n']} seeds: the strongest tuned baseline is "
                f"{ARMS[rival['control']].label} ({_numbers(rival)})."
            ]
    return []


def _lines(result: Result) -> Iterator[list[str]]:
    """The lines of the table that a study has something to say to."""
    title = DATASETS[result.dataset].title + result.reduced()
    if result.study in _CLAIMS:
        for figure, claim, measured, agrees in _CLAIMS[result.study](result):
            yield [figure, claim, title, measured, agrees]


Line = tuple[str, str, str, str]  # figure, claim, what was measured, whether it agrees


def _accuracy(result: Result) -> Iterator[Line]:
    rows = result.rows()
    if not set(PUBLISHED) <= set(rows["arm"]):
        return
    comparison = compare_arms(rows, *PUBLISHED)
    agrees = AGREEMENT[verdict(comparison, comparison.p_value)]
    claim = "the full method is above its gradient-only ablation"
    yield "figure 2", claim, _measured(comparison), agrees


def _low_data(result: Result) -> Iterator[Line]:
    rows = result.rows()
    equal_epochs = rows[rows["epochs"] == rows["epochs"].min()]
    gains = {
        share: _gain_by_seed(of_share, *PUBLISHED)
        for share, of_share in equal_epochs.groupby("fraction")
    }
    claim = "the full method is above its ablation at every share, more so with less data"
    yield "figure 3", claim, *_larger(gains, min(gains), max(gains))


def _gain_by_seed(rows: pd.DataFrame, treatment: str, control: str) -> pd.DataFrame:
    """The final accuracies of two arms, a row a seed."""
    by_seed = per_cell(rows).pivot(index="seed", columns="arm", values="final_accuracy")
    return by_seed[[treatment, control]]


def _larger(
    gains: Mapping[Hashable, pd.DataFrame], here: Hashable, there: Hashable
) -> tuple[str, str]:
    """Every condition's gain, and whether one condition's is larger than another's."""
    gain = {share: paired_comparison(*of_share.T.to_numpy()) for share, of_share in gains.items()}
    difference = paired_comparison(
        *(gains[share].diff(-1, axis=1).iloc[:, 0] for share in (here, there))
    )
    measured = [f"{share:.0%}: {_measured(of_share)}" for share, of_share in gain.items()]
    measured.append(f"{here:.0%} against {there:.0%}: {_measured(difference)}")
    agrees = "not shown"
    if all(of_share.interval_low > 0 for of_share in gain.values()):
        if difference.interval_low > 0:
            agrees = "yes"
        elif difference.interval_high < 0:
            agrees = "in part: everywhere, but less so"
        else:
            agrees = "in part: everywhere, not shown to be more"
    return "; ".join(measured), agrees


def _optimizers(result: Result) -> Iterator[Line]:
    summary = summarise(result.rows(), ["arm", "learning_rate"])
    best = summary.loc[summary.groupby("arm")["final_accuracy_mean"].idxmax()]
    best = best.sort_values("final_accuracy_mean", ascending=False)
    places = (
        f"{ARMS[row['arm']].label} {row['final_accuracy_mean']:.2f}% at {row['learning_rate']:g}"
        for row in best.to_dict("records")
    )
    first = best["arm"].iloc[0]
    claim = "standard optimizers end above the full method at well-tuned learning rates"
    agrees = "no" if first == "full" else "yes, in the means"
    yield "figure 4", claim, f"best of three rates: {', '.join(places)}", agrees


def _transfer(result: Result) -> Iterator[Line]:
    rows = result.rows()
    settings = rows["arm"].map({arm: ARMS[arm].learning_rate for arm in PUBLISHED})
    published = rows[rows["learning_rate"] == settings]
    comparison = compare_arms(published, *PUBLISHED)
    diverged = per_cell(rows)["diverged"].sum()
    claim = "with settings tuned on MNIST both are stable and gradient-only is slightly above"
    agrees = "not shown"
    if comparison.interval_high < 0:
        agrees = "yes"
    elif comparison.interval_low > 0:
        agrees = "no: the full method is above"
    if diverged:
        agrees += f"; {diverged} runs diverged"
    yield "figure 5", claim, _measured(comparison), agrees


def _dynamics(result: Result) -> Iterator[Line]:
    last = result.rows().query("epoch == epochs").groupby("arm")["alpha_mean"].mean()
    measured = f"mean α in the last epoch {last['full']:.3f} against {last['gradient_only']:.3f}"
    agrees = "yes" if last["full"] > last["gradient_only"] else "no"
    yield "figure 6", "the full method keeps a higher mean α", measured, agrees


def _design_space(result: Result) -> Iterator[Line]:
    rows = result.rows().query("split == 'test'")
    gains = {
        arm: compare_arms(rows, arm, base)
        for base, variants in DESIGN_SPACE.items()
        for arm in variants
        if {arm, base} <= set(rows["arm"])
    }
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist()
    verdicts = [verdict(gain, p) for gain, p in zip(gains.values(), adjusted, strict=True)]
    above = sum(gain.mean > 0 for gain in gains.values())
    shown = verdicts.count(Verdict.BETTER)
    best = max(gains, key=lambda arm: gains[arm].mean)
    measured = (
        f"{above} of {len(gains)} variants above their base in the mean, {shown} shown to be; "
        f"largest: {ARMS[best].label}, {_measured(gains[best])} before adjustment"
    )
    agrees = "yes" if shown > len(gains) / 2 else "not shown" if not shown else "for some"
    yield "figure 7", "variants of plasticity improve on their base", measured, agrees


def _noise(result: Result) -> Iterator[Line]:
    rows = result.rows().query("split == 'test'")
    usual = rows.loc[rows["label_noise"] > 0, "batch_size"].iloc[0]
    gains = {
        share: _gain_by_seed(of_share, "full", "gradient_only_wide")
        for share, of_share in rows[rows["batch_size"] == usual].groupby("label_noise")
    }
    claim = "the signals help, more so where labels are wrong (here by their share)"
    yield "abstract", claim, *_larger(gains, max(gains), min(gains))


def _selection(result: Result) -> Iterator[Line]:
    cells = per_cell(result.rows().query("split == 'test'"))
    finals = cells.set_index(["arm", "learning_rate", "seed"])["final_accuracy"].sort_index()
    selected = {
        row["family"]: finals.loc[row["arm"], row["learning_rate"]]
        for row in pd.read_csv(result.folder / SELECTIONS).to_dict("records")
    }
    treatment = selected.pop("full")
    gains = {
        family: paired_comparison(treatment.to_numpy(), control[treatment.index].to_numpy())
        for family, control in selected.items()
    }
    adjusted = holm([gain.p_value for gain in gains.values()]).tolist()
    for (family, gain), p in zip(gains.items(), adjusted, strict=True):
        claim = f"the full method is above *{ARMS[family].label}*, after 36 trials for each"
        yield "its selection", claim, _measured(gain), AGREEMENT[verdict(gain, p)]


def _verdicts(result: Result) -> Iterator[Line]:
    for row in result.comparisons().to_dict("records"):
        if row["control"] not in CONTROLS:
            continue
        measured = (
            f"Δ {row['mean']:+.2f} [{row['interval_low']:+.2f}, {row['interval_high']:+.2f}], "
            f"p = {row['p_adjusted']:.2g} (Holm), n = {row['n']}"
        )
        claim = f"the signals matter: better than *{ARMS[row['control']].label}*, both tuned"
        yield "central claim", claim, measured, AGREEMENT[Verdict(row["verdict"])]


_CLAIMS: dict[str, Callable[[Result], Iterable[Line]]] = {
    "accuracy": _accuracy,
    "low_data": _low_data,
    "optimizers": _optimizers,
    "transfer": _transfer,
    "dynamics": _dynamics,
    "design_space": _design_space,
    "noise": _noise,
    "selection": _selection,
    "verdict": _verdicts,
}


def _measured(comparison: PairedComparison) -> str:
    interval = f"[{comparison.interval_low:+.2f}, {comparison.interval_high:+.2f}]"
    return f"Δ {comparison.mean:+.2f} {interval}, p = {comparison.p_value:.2g}, n = {comparison.n}"


def _verdict(results: list[Result]) -> list[str]:
    """The fair test's outcome in plain words, from its comparisons."""
    text = []
    for result in results:
        if result.study != "verdict":
            continue
        rows = result.comparisons().to_dict("records")
        text += [f"## Verdict on {DATASETS[result.dataset].title}", ""]
        for row in rows:
            if row["control"] in _ANSWERS:
                text.append(f"- {_answer(row)}.")
        for outcome in Verdict:
            names = [
                f"{ARMS[row['control']].label} ({row['mean']:+.2f})"
                for row in rows
                if row["control"] not in _ANSWERS and row["verdict"] == str(outcome)
            ]
            if names:
                text.append(f"- {_BASELINES[outcome]}: {', '.join(names)}.")
        text += ["", f"![differences]({result.folder.name}/figure.png)", ""]
    return text


def _answer(row: Mapping[Hashable, Any]) -> str:
    """What one comparison says, in words and numbers."""
    answers = _ANSWERS[row["control"]]
    answer = answers.get(Verdict(row["verdict"])) or answers[Verdict.NOT_SHOWN]
    return f"{answer} ({_numbers(row)})"


def _numbers(row: Mapping[Hashable, Any]) -> str:
    interval = f"{row['interval_low']:+.2f} to {row['interval_high']:+.2f}"
    return f"full minus {ARMS[row['control']].label}: {row['mean']:+.2f} points, {interval}"


_ANSWERS = {
    "gradient_only": {
        Verdict.BETTER: "The paper's own comparison reproduces, at its own settings",
        Verdict.WORSE: "The paper's own comparison comes out the other way round",
        Verdict.NO_PRACTICAL_DIFFERENCE: "The paper's own comparison, at its own settings, gives a "
        "difference of no practical size",
        Verdict.NOT_SHOWN: "The paper's own comparison does not reproduce",
    },
    "gradient_only_wide": {
        Verdict.BETTER: "Against the gradient signal alone, activity and memory help at equal "
        "bounds and equal tuning",
        Verdict.NO_PRACTICAL_DIFFERENCE: "Activity and memory make no difference of practical size "
        "at equal bounds and equal tuning",
        Verdict.NOT_SHOWN: "Activity and memory are not shown to help at equal bounds and tuning",
    },
    "permuted": {
        Verdict.BETTER: "It matters which coordinate gets which coefficient",
        Verdict.NO_PRACTICAL_DIFFERENCE: "Which coordinate gets which coefficient makes no "
        "difference of practical size",
        Verdict.NOT_SHOWN: "It is not shown to matter which coordinate gets which coefficient",
    },
    "random": {
        Verdict.BETTER: "α does more than noise of the same mean and variance",
        Verdict.NO_PRACTICAL_DIFFERENCE: "Noise of the same mean and variance does as well as α",
        Verdict.NOT_SHOWN: "α is not shown to do more than noise of the same mean and variance",
    },
    "norm_matched": {
        Verdict.BETTER: "α does more than change the size of the step",
        Verdict.NO_PRACTICAL_DIFFERENCE: "One number a leaf, which gives the same size of step, "
        "does as well as α: beyond the size of the step, the three signals make no difference of "
        "practical size",
        Verdict.NOT_SHOWN: "α is not shown to do more than change the size of the step",
    },
}
_BASELINES = {
    Verdict.BETTER: "Of the tuned baselines the full method is better than",
    Verdict.WORSE: "It is worse than",
    Verdict.NO_PRACTICAL_DIFFERENCE: "There is no difference of practical size between it and",
    Verdict.NOT_SHOWN: "It is shown neither to be better than, nor to be within the margin of",
}


def main(folder: Path = Path("docs/results")) -> None:
    """Writes the page of results into the folder that holds the studies' folders.

    Args:
      folder: where the studies' folders are.
    """
    write_atomically(folder / PAGE, page(folder))


if __name__ == "__main__":
    tyro.cli(main)
