"""Figure 6 of the paper: what plasticity does during training."""

import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import comparisons, plotting, reference
from experiments.arms import ARMS, PUBLISHED
from experiments.cells import Workload
from experiments.comparisons import Sample, compare, rows_of
from experiments.naming import colour, find_arm, label
from experiments.studies.base import FIGURE, Run, Study, TaskName
from experiments.studies.checks import check_known
from experiments.studies.findings import Claim, Findings, bullets, compared
from experiments.studies.headings import heading
from experiments.summary import summarise
from experiments.tables import Table, markdown_table
from neuroplastic_optax.monitoring import ALPHA_EDGES

HIGHER_ALPHA = "Does the full method keep a higher mean α than its ablation?"
SMALLEST_SHARE = 1e-3  # percent: where the colours of a histogram begin
MEASURES = {
    "alpha_mean": "mean of α",
    "effective_update_norm": "norm of the effective update",
    "raw_gradient_norm": "norm of the raw gradient",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamics(Study):
    """Figure 6 of the paper: what plasticity does during training, by epoch and by layer.

    Attributes:
      arms: those that have an α, such as full, gradient_only and the ablations.
    """

    name = "dynamics"

    task: TaskName = "fashion_mnist"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = tuple(name for name, arm in ARMS.items() if arm.has_alpha)
        check_known("arms with a coefficient,", self.arms, known)

    def workload(self) -> Workload:
        """What the study's cells share; plasticity is watched in every layer."""
        return dataclasses.replace(super().workload(), diagnostics="per_leaf")

    def run(self, run: Run, source: str) -> Findings:
        """Asks for the training runs, at the arms' default learning rates."""
        rows = run(
            [cell for arm in self.arms for cell in self.cells(arm, find_arm(arm).learning_rate)]
        )
        published = reference.load(self.task) if self.task in reference.DATASETS else None
        found = self.compare(rows)
        table = last_epoch(rows, published)
        report = [
            "What plasticity does",
            f"{self.epochs} epochs, batches of {self.batch_size}, {self.seeds} seeds per arm, "
            f"learning rate {rows['learning_rate'].iloc[0]:g}. Data: {source}.",
            "Last epoch, mean over seeds; norms are the root of the summed squares over the "
            "epoch's steps.",
            markdown_table(table),
            *compared(found, self.name),
            *distances(rows, published),
            "## Ascent directions",
            "Where α is negative, a coordinate is moved up its gradient. It needs γ above 1 and an "
            "entry whose mixed signal is far below its gradient signal.",
            bullets(negative_entries(rows)),
            "![dynamics](figure.png)",
            *(f"![α by layer, {arm}](layers-{arm}.png)" for arm in self.arms),
        ]
        figures = {FIGURE: self.figure(rows, published, found)}
        drawn = f"all steps of an epoch, mean of {self.seeds} seeds; white: no entry"
        figures |= {
            f"layers-{arm}.png": layers(
                rows[rows["arm"] == arm],
                heading(self, f"distribution of α by leaf and epoch, {label(arm)}", drawn),
            )
            for arm in self.arms
        }
        summary = summarise(rows, ["arm", "learning_rate"])
        return Findings(table, summary, found, figures, report)

    def compare(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The mean α in the last epoch: the first arm against each of the others."""
        last = rows[rows["epoch"] == rows["epochs"]].set_index("seed")
        first, *others = (
            Sample(
                arm,
                find_arm(arm).learning_rate,
                last.loc[last["arm"] == arm, "alpha_mean"],
                metric="mean α in the last epoch",
                margin=math.nan,
            )
            for arm in self.arms
        )
        return comparisons.table(
            compare(
                HIGHER_ALPHA
                if (first.arm, other.arm) == PUBLISHED
                else f"Is the mean α of {label(first.arm)} higher than that of {label(other.arm)}?",
                first,
                other,
                family=self.name,
            )
            for other in others
        )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 6."""
        return [Claim.of("figure 6", row) for row in rows_of(found, question=HIGHER_ALPHA)]

    def figure(
        self, rows: pd.DataFrame, published: pd.DataFrame | None, found: pd.DataFrame
    ) -> Figure:
        """Mean α, effective update and raw gradient by epoch, beside the published runs."""
        figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
        for axes, (column, what) in zip(panels, MEASURES.items(), strict=True):
            plotting.draw_by_epoch(axes, rows, column)
            if published is not None:
                for arm in self.arms:
                    mean = published[published["arm"] == arm].groupby("epoch")[column].mean()
                    style = {"linestyle": "--", "marker": "x", "linewidth": 1}
                    axes.plot(mean.index, mean, color=colour(arm), **style)
            axes.set(xlabel="epoch", ylabel=what, title=what)
        handles, labels = panels[0].get_legend_handles_labels()
        if published is not None:
            handles += panels[0].plot([], [], color="0.3", linestyle="--", marker="x")
            labels += ["published implementation, mean of 3 seeds"]
        panels[0].legend(handles, labels, frameon=False, fontsize=8)
        what = "what plasticity does; norms over an epoch"
        figure.suptitle(heading(self, what, plotting.band(rows), rows_of(found)))
        return figure


def last_epoch(rows: pd.DataFrame, published: pd.DataFrame | None) -> Table:
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
            table.append([label(arm), f"{run}, {seeds} seeds", *(f"{m:.3f}" for m in means)])
    return table


def negative_entries(rows: pd.DataFrame) -> list[str]:
    """One line per arm on how many entries of α are below zero."""
    lines = []
    for arm in rows["arm"].unique():
        of_arm = rows[rows["arm"] == arm]
        share = 100 * of_arm.groupby("epoch")["fraction_negative"].mean()
        lowest = of_arm["alpha_min"].min()
        most = f"at most {share.max():.2g}% of entries in an epoch (epoch {share.idxmax()})"
        lines.append(
            f"{label(arm)}: {most if share.max() > 0 else 'none'}; "
            f"the smallest α seen is {lowest:.3f}."
        )
    return lines


def distances(rows: pd.DataFrame, published: pd.DataFrame | None) -> list[str]:
    """How far the means over seeds are from those of the published implementation."""
    if published is None:
        return []
    parts = []
    for column, what in (
        ("alpha_mean", "mean α"),
        ("effective_update_norm", "the norm of the effective update"),
        ("raw_gradient_norm", "the norm of the raw gradient"),
    ):
        ours = rows.groupby(["arm", "epoch"])[column].mean()
        theirs = published.groupby(["arm", "epoch"])[column].mean()
        apart = ((ours - theirs) / theirs).abs().max()
        parts.append(f"{what} by at most {100 * apart:.1f}%")
    return [
        "Over all epochs, the means over seeds of ours and of the published implementation differ "
        f"in {', in '.join(parts)}."
    ]


def layers(of_arm: pd.DataFrame, title: str) -> Figure:
    """The distribution of α in each leaf by epoch, and the shares at the bounds."""
    leaves = [name.partition("/")[2] for name in of_arm.columns if name.startswith("alpha_mean/")]
    kernels_first = sorted(leaves, key=lambda leaf: (leaf.rpartition("/")[2] != "kernel", leaf))
    figure, grid = plt.subplots(
        2,
        len(leaves),
        figsize=(2.6 * len(leaves), 5.8),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 2),
    )
    shares = {
        "fraction_at_max": ("α ≥ upper bound", "#D55E00"),
        "fraction_at_min": ("α ≤ lower bound", "#0072B2"),
        "fraction_negative": ("α < 0", "#000000"),
    }
    width = ALPHA_EDGES[1] - ALPHA_EDGES[0]
    # The two open ends of the histogram are drawn as wide as the other bins.
    heights = np.array([ALPHA_EDGES[0] - width, *ALPHA_EDGES, ALPHA_EDGES[-1] + width])
    for (top, bottom), leaf in zip(grid.T, kernels_first, strict=True):
        epochs = of_arm.groupby("epoch")
        numbers = np.array(sorted(of_arm["epoch"].unique()))
        histogram = np.array([100 * epochs[name].mean() for name in histogram_columns(leaf)])
        image = top.pcolormesh(
            np.append(numbers - 0.5, numbers[-1] + 0.5),
            heights,
            np.ma.masked_less_equal(histogram, 0),
            norm=LogNorm(SMALLEST_SHARE, 100),
            cmap="viridis",
        )
        mean = epochs[f"alpha_mean/{leaf}"].mean()
        top.plot(mean.index, mean, color="white", marker=".", markersize=4, label="mean")
        top.set_title(leaf, fontsize=9)
        for column, (name, of_share) in shares.items():
            share = 100 * epochs[f"{column}/{leaf}"].mean()
            bottom.plot(share.index, share, color=of_share, marker=".", markersize=4, label=name)
        bottom.set(xlabel="epoch")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.set_yscale("symlog", linthresh=0.01)
        bottom.set_ylim(bottom=0)
    inner = ALPHA_EDGES[5:-1:5]
    ends = [f"< {ALPHA_EDGES[0]:g}", f"≥ {ALPHA_EDGES[-1]:g}"]
    grid[0, 0].set_yticks(
        [ALPHA_EDGES[0] - width / 2, *inner, ALPHA_EDGES[-1] + width / 2],
        [ends[0], *(f"{edge:g}" for edge in inner), ends[1]],
    )
    grid[0, 0].set_ylabel("α")
    grid[0, 0].legend(fontsize=7, facecolor="0.3", labelcolor="white", loc="upper left")
    grid[1, 0].set_ylabel("share of entries (%)")
    grid[1, 0].legend(frameon=False, fontsize=7)
    figure.colorbar(
        image, ax=grid, label=f"share of entries per {width:g} of α (%)", fraction=0.02, pad=0.01
    )
    figure.suptitle(title)
    return figure


def histogram_columns(leaf: str) -> list[str]:
    """The columns of a leaf's histogram of α, from its lowest bin on."""
    return [f"alpha_from_{edge}/{leaf}" for edge in ("-inf", *(f"{e:g}" for e in ALPHA_EDGES))]
