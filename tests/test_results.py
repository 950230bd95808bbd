"""The page of results says what the committed records say, and nothing typed in by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import results
from experiments.cells import Cell, Workload
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


def test_the_headline_is_the_claim_the_size_of_the_step_and_the_strongest_rival(tmp_path):
    record_verdict(tmp_path)
    published, size, rival = results.headline(tmp_path)
    assert "gives a difference of no practical size (full minus gradient-only" in published
    assert "does as well as α" in size
    assert "the strongest tuned baseline is Adam (full minus Adam: +0.03 points" in rival


def test_there_is_no_headline_without_a_fair_test(tmp_path):
    record(tmp_path, "accuracy", "mnist", {"full": [97, 98], "gradient_only": [96, 98]})
    assert results.headline(tmp_path) == []


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


def record_cells(folder, study, accuracy, *, dataset="cifar10", **configuration):
    """A study's records from accuracies by (arm, learning rate, changes of the workload)."""
    rows = pd.DataFrame(
        [
            {
                **Cell(Workload(dataset, epochs=1, **dict(changes)), arm, rate, seed).fields(),
                **{"epoch": 1, "train_loss": 0.5, "test_loss": 0.5, "seconds": 1.0},
                "test_accuracy": value / 100,
            }
            for (arm, rate, changes), values in accuracy.items()
            for seed, value in enumerate(values)
        ]
    )
    configuration = {"dataset": dataset, "epochs": 1, **configuration}
    with Records(folder / f"{study}-{dataset}", study, configuration) as records:
        records.add(rows)


def line_of(folder, figure):
    (line,) = (line for line in results.page(folder).splitlines() if line.startswith(f"| {figure}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(("full", "agrees"), [(50, "yes, in the means"), (62, "no")])
def test_the_order_of_the_optimizers_is_that_of_their_best_rates(tmp_path, full, agrees):
    finals = {
        ("full", 0.1, ()): [full] * 2,
        ("adam", 0.1, ()): [30] * 2,
        ("adam", 0.001, ()): [60] * 2,
    }
    record_cells(tmp_path, "optimizers", finals, width=8, fraction=0.1)
    _, _, title, measured, said = line_of(tmp_path, "figure 4")
    assert title == "CIFAR-10 (width 8, 10% of the images, 1 epochs)"
    assert "Adam 60.00% at 0.001" in measured
    assert said == agrees


@pytest.mark.parametrize(
    ("gain", "agrees"), [(-1.0, "yes"), (1.0, "no: the full method is above"), (0.0, "not shown")]
)
def test_a_transfer_is_judged_at_the_published_rates(tmp_path, gain, agrees):
    wobble = 0.1 * np.sin(np.arange(6))
    finals = {
        ("full", 0.1, ()): 50 + gain + wobble,
        ("gradient_only", 0.1, ()): 50 + 0 * wobble,
        ("full", 0.05, ()): 90 + wobble,
    }
    record_cells(tmp_path, "transfer", finals)
    *_, measured, said = line_of(tmp_path, "figure 5")
    assert f"Δ {gain + wobble.mean():+.2f}" in measured
    assert said == agrees


@pytest.mark.parametrize(("gain", "agrees"), [(1.0, "yes"), (0.0, "not shown")])
def test_variants_are_compared_with_their_own_base(tmp_path, gain, agrees):
    wobble = 0.1 * np.sin(np.arange(12))
    finals = {
        ("sgd_homeostasis", 0.1, ()): 50 + 0 * wobble,
        ("bounded", 0.1, ()): 50 + gain + wobble,
        ("adam_homeostasis", 0.1, ()): 70 + 0 * wobble,
        ("adam_gain", 0.1, ()): 70 + gain + wobble,
        ("adam", 0.1, (("split", "validation"),)): 99 + wobble,
    }
    record_cells(tmp_path, "design_space", finals)
    *_, measured, said = line_of(tmp_path, "figure 7")
    assert f"of 2 variants above their base in the mean, {2 if gain else 0} shown to be" in measured
    assert said == agrees


@pytest.mark.parametrize(
    ("gain", "agrees"),
    [
        (2.0, "yes"),
        (1.0, "in part: everywhere, not shown to be more"),
        (0.5, "in part: everywhere, but less so"),
        (-1, "not shown"),
    ],
)
def test_noise_has_to_make_the_gain_larger(tmp_path, gain, agrees):
    wobble = 0.1 * np.sin(np.arange(6))
    finals = {
        ("full", 0.1, ()): 81 + wobble,
        ("gradient_only_wide", 0.1, ()): 80 + 0 * wobble,
        ("full", 0.1, (("label_noise", 0.4),)): 70 + gain - wobble,
        ("gradient_only_wide", 0.1, (("label_noise", 0.4),)): 70 + 0 * wobble,
        ("full", 0.1, (("batch_size", 16),)): 99 + wobble,
    }
    record_cells(tmp_path, "noise", finals, dataset="mnist")
    *_, measured, said = line_of(tmp_path, "abstract")
    assert f"40%: Δ {(gain - wobble).mean():+.2f}" in measured
    assert f"40% against 0%: Δ {(gain - 1 - 2 * wobble).mean():+.2f}" in measured
    assert said == agrees


def test_little_data_has_to_make_the_gain_larger(tmp_path):
    wobble = 0.1 * np.sin(np.arange(6))
    finals = {
        ("full", 0.1, ()): 81 + wobble,
        ("gradient_only", 0.1, ()): 80 + 0 * wobble,
        ("full", 0.1, (("fraction", 0.1),)): 72 + wobble,
        ("gradient_only", 0.1, (("fraction", 0.1),)): 70 + 0 * wobble,
    }
    record_cells(tmp_path, "low_data", finals, dataset="mnist")
    *_, measured, said = line_of(tmp_path, "figure 3")
    assert "10% against 100%: Δ +1.00" in measured
    assert said == "yes"


def test_selected_settings_are_compared_by_family(tmp_path):
    wobble = 0.1 * np.sin(np.arange(12))
    finals = {
        ("full", 0.1, ()): 97 + wobble,
        ("adam_b2_0.9", 0.001, ()): 96 + 0 * wobble,
        ("adam", 0.001, (("split", "validation"),)): 99 + wobble,
    }
    record_cells(tmp_path, "selection", finals, dataset="mnist")
    pd.DataFrame(
        [("full", "full", 0.1), ("adam", "adam_b2_0.9", 0.001)],
        columns=["family", "arm", "learning_rate"],
    ).to_csv(tmp_path / "selection-mnist" / "selections.csv", index=False)
    _, claim, _, measured, said = line_of(tmp_path, "its selection")
    assert "above *Adam*, after 36 trials" in claim
    assert f"Δ {1 + wobble.mean():+.2f}" in measured
    assert said == "yes"
