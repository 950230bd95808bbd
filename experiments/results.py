"""The page of results: what the paper claims beside what was measured, from committed records."""

import dataclasses
import json
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from experiments.figures import DATASET_TITLES
from experiments.optimizers import ARMS
from experiments.records import MANIFEST, RUNS, read_runs, write_atomically
from experiments.report import Table, markdown_table
from experiments.statistics import PairedComparison, Verdict, verdict
from experiments.studies import COMPARISONS
from experiments.summary import compare_arms

PUBLISHED = ("full", "gradient_only")
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
        f"- [{result.study}, {DATASET_TITLES[result.dataset]}]({result.folder.name}/report.md)"
        for result in results
    ]
    return "\n".join(
        [
            "# Results",
            "",
            "Final test accuracy by the paper's protocol:",
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
    """The lines for the project's README: the published claim, and the fair test."""
    lines = []
    for result in find(folder):
        title = DATASET_TITLES[result.dataset]
        if result.study == "accuracy":
            comparison = compare_arms(result.rows(), *PUBLISHED)
            agrees = AGREEMENT[verdict(comparison, comparison.p_value)]
            lines.append(
                f"- {title}, published settings, untuned: full minus {ARMS[PUBLISHED[1]].label} is "
                f"{_measured(comparison)}; better? {agrees}."
            )
        elif result.study == "verdict":
            lines += [f"- {title}, {line}" for line in _verdict_headline(result.comparisons())]
    return lines


def _verdict_headline(comparisons: pd.DataFrame) -> list[str]:
    """The claim at its own settings, what the signals add at equal tuning, and the best rival."""
    rows = comparisons.to_dict("records")
    published = next(row for row in rows if row["learning_rates"] == "published")
    tuned = {row["control"]: row for row in rows if row["learning_rates"] == "tuned"}
    rival = min(
        (row for arm, row in tuned.items() if arm not in CONTROLS), key=lambda row: row["mean"]
    )
    return [
        f"published settings: {_outcome(published)}.",
        f"equal bounds and equal tuning: {_outcome(tuned['gradient_only_wide'])}.",
        f"against the strongest tuned baseline: {_outcome(rival)}.",
    ]


def _outcome(row: Mapping[Hashable, Any]) -> str:
    """One comparison in words and numbers."""
    outcome = AGREEMENT[Verdict(row["verdict"])]
    interval = f"[{row['interval_low']:+.2f}, {row['interval_high']:+.2f}]"
    return (
        f"full minus {ARMS[row['control']].label} is {row['mean']:+.2f} points {interval}, "
        f"p = {row['p_adjusted']:.2g}, n = {row['n']}; better? {outcome}"
    )


def _lines(result: Result) -> Iterator[list[str]]:
    """The lines of the table that a study has something to say to."""
    title = DATASET_TITLES[result.dataset]
    if result.study == "accuracy":
        comparison = compare_arms(result.rows(), *PUBLISHED)
        agrees = AGREEMENT[verdict(comparison, comparison.p_value)]
        claim = "the full method is above its gradient-only ablation"
        yield ["figure 2", claim, title, _measured(comparison), agrees]
    elif result.study == "low_data":
        rows = result.rows()
        equal_epochs = rows[rows["epochs"] == rows["epochs"].min()]
        gains = {
            share: compare_arms(of_share, *PUBLISHED)
            for share, of_share in equal_epochs.groupby("fraction")
        }
        shares = (f"{share:.0%}: {_measured(gain)}" for share, gain in gains.items())
        text = "; ".join(shares)
        smallest, whole = gains[min(gains)], gains[max(gains)]
        larger = smallest.interval_low > whole.mean
        claim = "the full method is above its ablation at every share, more so with less data"
        agrees = "yes" if larger else "not shown: the gain with least data is not clearly larger"
        yield ["figure 3", claim, title, text, agrees]
    elif result.study == "dynamics":
        last = result.rows().query("epoch == epochs").groupby("arm")["alpha_mean"].mean()
        text = f"mean α in the last epoch {last['full']:.3f} against {last['gradient_only']:.3f}"
        agrees = "yes" if last["full"] > last["gradient_only"] else "no"
        yield ["figure 6", "the full method keeps a higher mean α", title, text, agrees]
    elif result.study == "verdict":
        for row in result.comparisons().to_dict("records"):
            if row["control"] not in CONTROLS:
                continue
            text = (
                f"Δ {row['mean']:+.2f} [{row['interval_low']:+.2f}, {row['interval_high']:+.2f}], "
                f"p = {row['p_adjusted']:.2g} (Holm), n = {row['n']}"
            )
            claim = f"the signals matter: better than *{ARMS[row['control']].label}*, both tuned"
            yield ["central claim", claim, title, text, AGREEMENT[Verdict(row["verdict"])]]


def _measured(comparison: PairedComparison) -> str:
    interval = f"[{comparison.interval_low:+.2f}, {comparison.interval_high:+.2f}]"
    return f"Δ {comparison.mean:+.2f} {interval}, p = {comparison.p_value:.2g}, n = {comparison.n}"


def _verdict(results: list[Result]) -> list[str]:
    """The fair test's outcome in words, counted from its comparisons."""
    text = []
    for result in results:
        if result.study != "verdict":
            continue
        tuned = result.comparisons().query("learning_rates == 'tuned'")
        text += [f"## Verdict on {DATASET_TITLES[result.dataset]}", ""]
        for outcome in Verdict:
            controls = tuned.loc[tuned["verdict"] == str(outcome), "control"]
            if len(controls):
                names = ", ".join(ARMS[arm].label for arm in controls)
                text.append(f"- {_OUTCOME[outcome]}: {names}.")
        text += ["", f"![differences]({result.folder.name}/figure.png)", ""]
    return text


_OUTCOME = {
    Verdict.BETTER: "With its learning rate tuned, the full method is better than",
    Verdict.WORSE: "It is worse than",
    Verdict.NO_PRACTICAL_DIFFERENCE: "There is no difference of practical size between it and",
    Verdict.NOT_SHOWN: "It is not shown to be better than, nor to be within the margin of",
}


def main(folder: Path = Path("docs/results")) -> None:
    """Writes the page of results into the folder that holds the studies' folders.

    Args:
      folder: where the studies' folders are.
    """
    write_atomically(folder / PAGE, page(folder))


if __name__ == "__main__":
    tyro.cli(main)
