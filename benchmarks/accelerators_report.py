"""Tables, figure and report of what was compiled for accelerators, from its rows alone."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.compilation import CONTESTANTS, SHARDINGS, TARGETS, TITLES
from experiments.tables import Table, markdown_table

QUANTITIES = {
    "bytes_per_parameter": ("bytes per parameter", "{:.1f}"),
    "kernels": ("kernels", "{:.0f}"),
    "temporary_per_parameter": ("bytes of temporary memory per parameter", "{:.1f}"),
    "compile_seconds": ("seconds of compilation", "{:.1f}"),
}
COLOURS = {"v4": "#999999", "v5e": "#0072B2", "v5p": "#56B4E9", "v6e": "#009E73", "h100": "#E69F00"}


def tables(steps: pd.DataFrame, pods: pd.DataFrame) -> list[tuple[str, Table]]:
    """Every table with its title."""
    found = []
    for tree, of_tree in steps.groupby("tree", sort=False):
        for quantity, (title, _) in QUANTITIES.items():
            found.append((f"{_size(of_tree)}: {title}", step_table(of_tree, quantity)))
        assert tree in TITLES
    if len(pods):
        found.append((_pods_title(pods), pod_table(pods)))
    return found


def _size(of_tree: pd.DataFrame) -> str:
    """A tree's name, leaves and parameters, where one of its rows knows them."""
    title = TITLES[of_tree["tree"].iloc[0]]
    known = of_tree[of_tree["outcome"] == "compiles"]
    if known.empty:
        return title
    leaves, parameters = known["leaves"].iloc[0], known["parameters"].iloc[0]
    return f"{title} ({leaves:.0f} {'leaf' if leaves == 1 else 'leaves'}, {parameters:,.0f})"


def step_table(of_tree: pd.DataFrame, quantity: str) -> Table:
    """One quantity of one tree: a row per optimizer, a column per accelerator."""
    of_tree = of_tree.assign(
        temporary_per_parameter=of_tree["temporary_bytes"] / of_tree["parameters"]
    )
    targets = [target for target in TARGETS if target in set(of_tree["target"])]
    with_floor = quantity == "bytes_per_parameter"
    table = [["optimizer", *(["floor"] if with_floor else [])]]
    table[0] += [TARGETS[target].label for target in targets]
    by_key = {(row["optimizer"], row["target"]): row for row in of_tree.to_dict("records")}
    for name, contestant in CONTESTANTS.items():
        if name not in set(of_tree["optimizer"]):
            continue
        floor = [f"{contestant.floor}" if contestant.passes else "–"] if with_floor else []
        cells = [_cell(by_key.get((name, target)), quantity) for target in targets]
        table.append([contestant.label, *floor, *cells])
    return table


def _cell(row: Mapping[Any, Any] | None, quantity: str) -> str:
    if row is None:
        return "not compiled"
    if row["outcome"] != "compiles":
        return str(row["outcome"])
    return QUANTITIES[quantity][1].format(row[quantity])


def _pods_title(pods: pd.DataFrame) -> str:
    known = pods[pods["outcome"] == "compiles"]
    return (
        "A training step on TPU v5e: a transformer of "
        f"{known['leaves'].iloc[0]:.0f} leaves, {known['parameters'].iloc[0]:,.0f} parameters"
    )


def pod_table(pods: pd.DataFrame) -> Table:
    """Collectives, those that the optimizer asks for, and memory, on each device."""
    header = ["devices", "sharding", "optimizer", "collectives", "their KB"]
    table = [[*header, "of the optimizer", "its bytes", "MB arguments", "MB temporary"]]
    for row in pods.sort_values("devices", kind="stable").to_dict("records"):
        devices, sharding, optimizer = (row[key] for key in ("devices", "sharding", "optimizer"))
        start = [f"{devices}", SHARDINGS[sharding], CONTESTANTS[optimizer].label]
        if row["outcome"] != "compiles":
            table.append([*start, row["outcome"], *[""] * (len(table[0]) - 4)])
            continue
        table.append(
            [
                *start,
                f"{row['collectives']:.0f}",
                f"{row['collective_bytes'] / 1e3:,.0f}",
                f"{row['optimizer_collectives']:.0f}",
                f"{row['optimizer_bytes']:,.0f}",
                f"{row['argument_bytes'] / 1e6:.2f}",
                f"{row['temporary_bytes'] / 1e6:.2f}",
            ]
        )
    return table


def make_figure(steps: pd.DataFrame, pods: pd.DataFrame) -> Figure:
    """Bytes per parameter beside the floor by optimizer, and memory per device by pod size."""
    trees = list(steps["tree"].unique())
    names = [name for name in CONTESTANTS if name in set(steps["optimizer"])]
    panels = len(trees) + bool(len(pods))
    figure, axes = plt.subplots(
        1, panels, figsize=(2.5 + 3.7 * panels, 5.5), squeeze=False, layout="constrained"
    )
    for panel, tree in zip(axes[0], trees, strict=False):
        _draw_tree(panel, steps[steps["tree"] == tree], names, panel is axes[0, 0])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, 3 * panels))
    if len(pods):
        _draw_pods(axes[0, -1], pods[pods["outcome"] == "compiles"].sort_values("devices"))
    return figure


def _draw_tree(panel: Any, of_tree: pd.DataFrame, names: list[str], named: bool) -> None:
    heights = {name: len(names) - number for number, name in enumerate(names)}
    targets = [target for target in TARGETS if target in set(of_tree["target"])]
    for number, target in enumerate(targets):
        some = of_tree[(of_tree["target"] == target) & (of_tree["outcome"] == "compiles")]
        offset = 0.3 - 0.6 * (number + 0.5) / len(targets)
        panel.plot(
            some["bytes_per_parameter"],
            [heights[name] + offset for name in some["optimizer"]],
            "o",
            markersize=4,
            color=COLOURS[target],
            label=TARGETS[target].label,
        )
    known = [name for name in of_tree["optimizer"].unique() if CONTESTANTS[name].passes]
    panel.plot(
        [CONTESTANTS[name].floor for name in known],
        [heights[name] for name in known],
        "|",
        color="#D55E00",
        markersize=18,
        markeredgewidth=2,
        label="floor",
    )
    labels = [CONTESTANTS[name].label for name in names] if named else []
    panel.set_yticks(list(heights.values()) if named else [], labels)
    panel.set(xscale="log", xlabel="bytes per parameter", title=TITLES[of_tree["tree"].iloc[0]])
    panel.set_ylim(0.3, len(names) + 0.7)
    ticks = [10, 20, 40, 80, 160, 320]
    panel.set_xticks(ticks, [f"{tick}" for tick in ticks])
    panel.minorticks_off()
    _plain(panel)


def _draw_pods(panel: Any, pods: pd.DataFrame) -> None:
    styles = dict(zip(pods["optimizer"].unique(), ("-", "--", ":"), strict=False))
    colours = dict(zip(SHARDINGS, ("#CC79A7", "#000000"), strict=True))
    for key, some in pods.groupby(["sharding", "optimizer"], sort=False):
        sharding, optimizer = map(str, key)
        memory = (some["argument_bytes"] + some["temporary_bytes"]) / 1e6
        panel.plot(
            some["devices"],
            memory,
            styles[optimizer],
            marker="o",
            markersize=4,
            color=colours[sharding],
            label=f"{SHARDINGS[sharding]}, {CONTESTANTS[optimizer].label}",
        )
    panel.set(xscale="log", yscale="log", xlabel="devices", title="Training on TPU v5e")
    panel.set_ylabel("MB per device")
    ticks = np.sort(pods["devices"].unique())
    panel.set_xticks(ticks, [f"{tick}" for tick in ticks])
    panel.minorticks_off()
    panel.legend(fontsize="small")
    _plain(panel)


def _plain(panel: Any) -> None:
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def make_report(steps: pd.DataFrame, pods: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    versions = manifest["versions"]
    library = manifest.get("library")
    lines = [
        f"# Compiled for accelerators{', from another library' if library else ''}",
        "",
        f"Compiled with JAX {versions['jax']}, libtpu {versions['libtpu']} and jax-cuda12-plugin "
        f"{versions['jax-cuda12-plugin']}, Optax {versions['optax']}, at commit "
        f"{manifest['commit']}, {manifest['written'][:10]}. Nothing ran: no time of a step is "
        "claimed. What is counted is on the page on benchmarks.",
        "",
        *(
            [f"Plasticity is that of another library, with SHA-256 {library}.", ""]
            if library
            else []
        ),
        "![bytes per parameter by optimizer and accelerator](figure.png)",
        "",
    ]
    for title, table in tables(steps, pods):
        lines += [f"{title}.", "", markdown_table(table), ""]
    broken = pd.concat([steps, pods])
    broken = broken[broken["outcome"] != "compiles"]
    if len(broken):
        lines += ["What the compilers did not compile:", ""]
        for row in broken.to_dict("records"):
            parts = [row[key] for key in ("target", "tree", "devices", "sharding", "optimizer")]
            name = ", ".join(f"{part}" for part in parts if not pd.isna(part))
            lines.append(f"- {name}: {row['outcome']}, `{row['reason']}`")
        lines.append("")
    return "\n".join(lines)
