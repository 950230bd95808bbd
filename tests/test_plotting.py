"""Figures: pictures of the records, an arm in the same colour everywhere, nothing left open."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments.cells import Cell, Workload
from experiments.comparisons import Sample, compare, rows_of, table
from experiments.naming import colour, label
from experiments.plotting import (
    draw_by_setting,
    draw_differences,
    draw_differences_by_setting,
    save,
)
from experiments.records import RecordError
from experiments.studies.accuracy import Accuracy
from experiments.studies.headings import heading


def accuracy_by_epoch(rows: pd.DataFrame) -> Figure:
    return Accuracy(task="mnist").figure(rows, table([]))


def differences(seeds: int = 10) -> pd.DataFrame:
    """The full method against two arms."""
    rng = np.random.default_rng(0)
    samples = (Sample(arm, 0.1, pd.Series(rng.random(seeds))) for arm in ("full", "sgd", "adam"))
    first, *others = samples
    return table(compare("Is it better?", first, other, family="all") for other in others)


def made_up_rows(*arms: str, seeds: int = 3, epochs: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    workload = Workload("mnist", epochs=epochs)
    return pd.DataFrame(
        [
            {
                **Cell(workload, arm, 0.1, seed).fields(),
                "epoch": epoch,
                "test_accuracy": rng.random(),
            }
            for arm in arms
            for seed in range(seeds)
            for epoch in range(1, epochs + 1)
        ]
    )


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    settings = dict(mpl.rcParams)
    assert plt.get_fignums() == []
    yield
    assert dict(mpl.rcParams) == settings
    plt.close("all")


class TestColours:
    @pytest.mark.parametrize("arms", [("full", "sgd", "adam"), ("adam", "full"), ("sgd",)])
    def test_an_arm_has_the_same_one_in_any_company(self, arms: tuple[str, ...]):
        (axes,) = accuracy_by_epoch(made_up_rows(*arms)).axes
        lines = {line.get_label(): line.get_color() for line in axes.get_lines()}
        assert lines == {label(arm): colour(arm) for arm in arms}

    def test_lines_of_one_colour_differ_in_their_style(self):
        arms = ("full", "full_clipped", "sgd", "full_bfloat16")
        (axes,) = accuracy_by_epoch(made_up_rows(*arms)).axes
        drawn = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines()]
        assert len(set(drawn)) == len(arms)
        assert [style for _, style in drawn] == ["-", "--", "-", ":"]


class TestAccuracyByEpoch:
    def test_draws_the_mean_of_the_rows_in_percent(self):
        rows = made_up_rows("sgd", "adam")
        (axes,) = accuracy_by_epoch(rows).axes
        for arm, line in zip(("sgd", "adam"), axes.get_lines(), strict=True):
            accuracy = rows.loc[rows["arm"] == arm, "test_accuracy"].to_numpy().reshape(3, 4)
            np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])
            np.testing.assert_allclose(line.get_ydata(), 100 * accuracy.mean(axis=0))

    def test_draws_a_band_of_one_standard_deviation(self):
        rows = made_up_rows("sgd")
        (axes,) = accuracy_by_epoch(rows).axes
        (band,) = axes.collections
        percent = 100 * rows["test_accuracy"].to_numpy().reshape(3, 4)
        mean, sd = percent.mean(axis=0), percent.std(axis=0, ddof=1)
        corners = band.get_paths()[0].vertices
        for epoch in range(4):
            heights = corners[corners[:, 0] == epoch + 1, 1]
            assert heights.min() == pytest.approx(mean[epoch] - sd[epoch])
            assert heights.max() == pytest.approx(mean[epoch] + sd[epoch])

    def test_does_not_depend_on_the_order_of_the_rows(self):
        rows = made_up_rows("sgd")
        one, other = (
            accuracy_by_epoch(r).axes[0].get_lines()[0].get_ydata()
            for r in (rows, rows.sample(frac=1, random_state=0))
        )
        np.testing.assert_allclose(one, other)

    def test_names_data_axes_and_arms(self):
        (axes,) = accuracy_by_epoch(made_up_rows("sgd")).axes
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel() == "test accuracy (%)"
        assert "MNIST" in axes.get_title()
        assert "3 seeds" in axes.get_title()
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SGD"]

    @pytest.mark.parametrize(("seeds", "epochs"), [(1, 4), (3, 1), (1, 1)])
    def test_draws_one_seed_and_one_epoch(self, seeds: int, epochs: int, tmp_path: Path):
        figure = accuracy_by_epoch(made_up_rows("sgd", seeds=seeds, epochs=epochs))
        if seeds == 1:
            assert "one seed" in figure.axes[0].get_title()
        save(figure, tmp_path / "figure.png")

    def test_leaves_the_rows_as_they_are(self):
        rows = made_up_rows("sgd")
        before = rows.copy()
        accuracy_by_epoch(rows)
        pd.testing.assert_frame_equal(rows, before)


class TestDifferences:
    def test_are_named_by_the_control_and_its_seeds(self):
        axes = plt.figure().add_subplot()
        draw_differences(axes, rows_of(differences()))
        names = [text.get_text() for text in axes.get_yticklabels()]
        assert names == ["SGD (n = 10)", "Adam (n = 10)"]
        assert axes.get_legend_handles_labels()[1] == ["no practical size (±0.2)"]

    def test_of_several_arms_lie_beside_each_other_at_a_setting(self):
        axes = plt.figure().add_subplot()
        draw_differences_by_setting(axes, [(0.2, row) for row in rows_of(differences())])
        sgd, adam = (line for line in axes.get_lines() if line.get_marker() == "o")
        places = [line.get_transform().transform((0.2, 0))[0] for line in (sgd, adam)]
        assert places[1] - places[0] > 5

    def test_of_no_comparison_are_none(self):
        axes = plt.figure().add_subplot()
        draw_differences_by_setting(axes, [])
        draw_differences(axes, [])
        assert axes.get_legend_handles_labels() == ([], [])


def test_bars_lie_beside_each_other_only_where_arms_share_a_setting():
    summary = pd.DataFrame(
        [("full", 0.1), ("sgd", 0.1), ("adam", 0.001)], columns=["arm", "learning_rate"]
    ).assign(final_mean=80.0, final_sd=1.0)
    axes = plt.figure().add_subplot()
    draw_by_setting(axes, summary, "learning_rate", "final")
    moved = []
    for container, rate in zip(axes.containers, summary["learning_rate"], strict=True):
        starts = {
            artist.get_transform().transform((rate, 0))[0] for artist in container.get_children()
        }
        (start,) = starts
        moved.append(start - axes.transData.transform((rate, 0))[0])
    assert moved[0] == pytest.approx(-moved[1])
    assert moved[0] < moved[2] == pytest.approx(0)


class TestHeading:
    def test_names_task_scale_seeds_and_the_smallest_differences_that_could_be_shown(self):
        study = Accuracy(task="python_source", epochs=6)
        found = differences()
        low, high = sorted(f"{size:.2g}" for size in found["detectable"])
        assert heading(study, "arms", "mean of 10 seeds", rows_of(found)) == (
            "Python's standard library (6 epochs): arms\n"
            f"mean of 10 seeds; could show {low} to {high} points at 80% power"
        )

    def test_says_where_there_are_too_few_seeds(self):
        text = heading(Accuracy(), "arms", "mean of 3 seeds", rows_of(differences(seeds=3)))
        assert text.endswith("mean of 3 seeds; too few seeds to show any difference")

    def test_says_nothing_of_comparisons_where_there_is_none(self):
        assert heading(Accuracy(), "arms", "one seed").endswith(": arms\none seed")


class TestSave:
    def test_writes_a_png_of_a_sensible_size_and_closes_the_figure(self, tmp_path: Path):
        save(accuracy_by_epoch(made_up_rows("full", "sgd")), tmp_path / "figure.png")
        content = (tmp_path / "figure.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert 10_000 < len(content) < 1_000_000
        height, width, _ = matplotlib.image.imread(io.BytesIO(content)).shape
        assert 1000 <= width <= 2000
        assert 500 <= height <= width
        assert plt.get_fignums() == []
        assert os.listdir(tmp_path) == ["figure.png"]

    def test_writes_the_same_bytes_for_the_same_rows(self, tmp_path: Path):
        for name in ("one.png", "other.png"):
            save(accuracy_by_epoch(made_up_rows("sgd")), tmp_path / name)
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()

    def test_closes_the_figure_where_it_cannot_be_written(self, tmp_path: Path):
        with pytest.raises(RecordError, match="cannot be written"):
            save(accuracy_by_epoch(made_up_rows("sgd")), tmp_path / "absent/figure.png")
        assert plt.get_fignums() == []
