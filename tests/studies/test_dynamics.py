"""Figure 6: what plasticity does."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.cells import Cell, ConfigError, Workload
from experiments.studies.dynamics import Dynamics, histogram_columns, layers
from tests.studies.made_up import LEAVES, Done, StudyTests


class TestDynamics(StudyTests):
    study = Dynamics(seeds=2, epochs=2)
    files = frozenset({"layers-full.png", "layers-gradient_only.png"})

    def test_is_of_arms_with_a_coefficient_alone(self):
        with pytest.raises(ConfigError, match=r"'sgd'; known are full, gradient_only"):
            Dynamics(arms=("full", "sgd"))

    def test_watches_every_leaf(self, done: Done):
        for leaf in LEAVES:
            assert done.rows[f"alpha_mean/{leaf}"].notna().all()

    def test_reports_and_compares_the_last_epoch(self, done: Done):
        last = done.rows[done.rows["epoch"] == 2].groupby("arm")["alpha_mean"].mean()
        assert f"| {last['full']:.3f} |" in done.report
        (row,) = done.comparisons.to_dict("records")
        assert row["mean"] == pytest.approx(last["full"] - last["gradient_only"], abs=1e-6)
        assert np.isnan(row["margin"]), "of practical size are differences of accuracies alone"


class TestLayers:
    def test_draws_each_leaf_s_histogram_and_its_shares_at_the_bounds(self):
        cells = [Cell(Workload("mnist", epochs=4), "full", 0.1, seed) for seed in range(2)]
        rows = pd.DataFrame(
            [{**cell.fields(), "epoch": epoch} for cell in cells for epoch in range(1, 5)]
        )
        planted = dict.fromkeys(histogram_columns("kernel"), 0.0)
        planted |= {"alpha_from_0.2/kernel": 0.75, "alpha_from_1.1/kernel": 0.25}
        planted |= {"alpha_mean/kernel": 0.4, "fraction_at_min/kernel": 0.75}
        planted |= {"fraction_at_max/kernel": 0.0, "fraction_negative/kernel": 0.0}
        top, bottom, *_ = layers(rows.assign(**planted), "MNIST").axes
        (mesh,) = top.collections
        heights = mesh.get_coordinates()[:-1, 0, 1]  # lower edges of the bins
        drawn = {
            round(float(height), 1): share
            for height, share in zip(heights, mesh.get_array()[:, 0], strict=True)
            if share is not np.ma.masked
        }
        assert drawn == {0.2: 75.0, 1.1: 25.0}
        lines = {line.get_label(): line.get_ydata() for line in bottom.get_lines()}
        np.testing.assert_allclose(lines["α ≤ lower bound"], 75.0)
        plt.close("all")
