"""The page of results says what the committed records say, and nothing typed in by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import results
from experiments.configs import Cell, Workload
from experiments.hypotheses import Competitor, Hypothesis
from experiments.records import Records
from experiments.report import comparison_frame
from experiments.statistics import paired_comparison
from experiments.studies import COMPARISONS

COMMITTED = Path(__file__).parents[1] / "docs" / "results"


def record_verdict(folder):
    """A fair test's comparisons, as that study leaves them."""
    record(folder, "verdict", "fashion_mnist", {"full": [88, 88], "gradient_only": [87, 88]})
    arms = ("gradient_only", "gradient_only_wide", "permuted", "random", "norm_matched", "adam")
    same = paired_comparison([88.0, 88.1, 88.3], [88.0, 88.1, 88.2])
    hypotheses = [
        Hypothesis(Competitor("full", rate), Competitor(arm, rate), "")
        for arm in arms
        for rate in ("published" if arm == "gradient_only" else "tuned",)
    ]
    table = comparison_frame(hypotheses, [same] * len(arms), [0.5] * len(arms))
    table.to_csv(folder / "verdict-fashion_mnist" / COMPARISONS, index=False)


def record(folder, study, dataset, accuracy):
    """A study's records, with the final accuracy (in percent) of each arm and seed."""
    cells = [
        (Cell(Workload(dataset, epochs=1), arm, 0.1, seed), value)
        for arm, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    rows = pd.DataFrame(
        [
            {
                **cell.fields(),
                "epoch": 1,
                "train_loss": 0.5,
                "test_loss": 0.5,
                "test_accuracy": value / 100,
                "seconds": 1.0,
            }
            for cell, value in cells
        ]
    )
    with Records(folder / f"{study}-{dataset}", study, {"dataset": dataset}) as records:
        records.add(rows)


def test_the_committed_page_is_made_from_the_committed_records():
    assert (COMMITTED / results.PAGE).read_text("utf-8") == results.page(COMMITTED)


def test_the_projects_readme_carries_the_headline_of_the_page():
    readme = (COMMITTED.parents[1] / "README.md").read_text("utf-8")
    headline = results.headline(COMMITTED)
    assert headline
    for line in headline:
        assert line in readme


def test_the_headline_holds_the_claim_and_the_fair_test(tmp_path):
    record_verdict(tmp_path)
    record(tmp_path, "accuracy", "mnist", {"full": [97, 98], "gradient_only": [96, 98]})
    claim, published, equal, rival = results.headline(tmp_path)
    assert claim.startswith("- MNIST, published settings, untuned")
    assert published.startswith("- Fashion-MNIST, published settings: full minus gradient-only")
    assert "equal tuning: full minus gradient-only, full's bounds" in equal
    assert "strongest tuned baseline: full minus Adam" in rival


@pytest.mark.parametrize(
    ("gain", "answer"),
    [(1.0, "yes"), (-1.0, "no: the opposite"), (0.0, "no: no difference of practical size")],
)
def test_a_planted_difference_is_what_the_page_reports(tmp_path, gain, answer):
    record_verdict(tmp_path)
    wobble = 0.1 * np.sin(np.arange(12))
    record(tmp_path, "accuracy", "mnist", {"full": 97 + gain + wobble, "gradient_only": [97] * 12})
    (line,) = (line for line in results.page(tmp_path).splitlines() if "figure 2" in line)
    assert line.endswith(f"| {answer} |")
    assert f"Δ {gain + wobble.mean():+.2f}" in line
    assert "n = 12" in line


def test_every_study_on_the_page_links_its_report(tmp_path):
    record_verdict(tmp_path)
    for dataset in ("mnist", "fashion_mnist"):
        record(tmp_path, "accuracy", dataset, {"full": [97, 98], "gradient_only": [96, 98]})
    page = results.page(tmp_path)
    assert "(accuracy-mnist/report.md)" in page
    assert "(accuracy-fashion_mnist/report.md)" in page
