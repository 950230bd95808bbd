"""Time and memory traffic of an optimizer's whole step, for several optimizers and models."""

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import optax.contrib
import pandas as pd
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich.console import Console
from rich.progress import Progress

import neuroplastic_optax as npx
from benchmarks import harness, hlo
from experiments import models
from experiments.tables import Table, markdown_table, show
from neuroplastic_optax import _coefficient

LEARNING_RATE = 1e-3  # its value costs nothing
FLOAT = 4  # bytes
GB = 1e9
SPARE = 1.5  # a CPU's allocator leaves holes: 1.44 times the sum was seen


@dataclasses.dataclass(frozen=True)
class Contestant:
    """An optimizer, and the least memory traffic that its step can have.

    Attributes:
      label: what tables and figures call it.
      make: builds it: an Optax transformation, or an optimizer that does the whole step itself,
        with ``init(params)`` and ``step(params, state, gradients)``.
      passes: the passes over a leaf that is too large for a cache, in the form "read > written", a
        letter an array: gradient g, parameter p, traces a, m, v (with Adam's own M and V), and
        arrays that wait for the next pass, the update u or the base's update b and its residual d.
        A pass ends where a number over the whole leaf, a mean or a norm, must be known to go on.
        Nothing but the optimizer's state is kept from step to step.
      trace: bytes of one entry of a trace.
    """

    label: str
    make: Callable[[], Any]
    passes: tuple[str, ...]
    trace: int = FLOAT

    @property
    def floor(self) -> int:
        """Bytes per parameter that the passes read and write.

        >>> [CONTESTANTS[name].floor for name in ("sgd", "adam", "gradient_only", "full")]
        [12, 28, 20, 60]
        """
        arrays = "".join(self.passes).replace(" > ", "")
        return sum(self.trace if array in "amvMV" else FLOAT for array in arrays)


def with_other_barrier(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same step with a barrier where the library has none, and without where it has one.

    The library computes its signals behind an ``optimization_barrier`` for a CPU alone.
    """

    def without(operands: Any) -> Any:
        return operands

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        on_cpu = jax.default_backend() == "cpu"
        other = without if on_cpu else jax.lax.optimization_barrier
        with mock.patch.object(_coefficient, "computed_twice", other):
            return tx.update(gradients, state, params)

    return optax.GradientTransformation(tx.init, update)


def _flash_adamw() -> Any:
    """AdamW in one kernel for each leaf, with traces of eight bits, where there is a GPU for it."""
    import flashoptim_jax

    fused = jax.default_backend() == "gpu"
    return flashoptim_jax.flash_adamw(LEARNING_RATE, master_weight_bits=None, fused=fused)


# The first pass gives the means, the second the norm, the third takes the step. The full method's
# second pass leaves its update behind: 8 bytes, where to compute it again would read 16.
# The gradient-only coefficient needs the gradient alone, which costs less to read again. With a
# base, the norms of base, residual and sum all come from three sums of the second pass. Muon's
# matrix products have no such count, and are left out.
FULL = ("gamv > ", "gamv > amvu", "up > p")

CONTESTANTS = {
    "sgd": Contestant("SGD", lambda: optax.sgd(LEARNING_RATE), ("gp > p",)),
    "adam": Contestant("Adam", lambda: optax.adam(LEARNING_RATE), ("gmvp > mvp",)),
    "adamw": Contestant("AdamW", lambda: optax.adamw(LEARNING_RATE), ("gmvp > mvp",)),
    "muon": Contestant("Muon", lambda: optax.contrib.muon(LEARNING_RATE), ("gmp > mp",)),
    "full": Contestant("NeuroPlastic (full)", lambda: npx.neuroplastic(LEARNING_RATE), FULL),
    "full_other_barrier": Contestant(
        "full, the barrier the other way",
        lambda: with_other_barrier(npx.neuroplastic(LEARNING_RATE)),
        FULL,
    ),
    "full_bfloat16": Contestant(
        "full, traces in bfloat16",
        lambda: npx.neuroplastic(LEARNING_RATE, accumulator_dtype=jnp.bfloat16),
        FULL,
        trace=2,
    ),
    "gradient_only": Contestant(
        "gradient-only ablation",
        lambda: npx.gradient_only(LEARNING_RATE),
        ("g > ", "g > ", "gp > p"),
    ),
    "with_plasticity": Contestant(
        "Adam with plasticity",
        lambda: optax.chain(
            npx.with_plasticity(optax.scale_by_adam()),
            npx.homeostasis(),
            optax.scale_by_learning_rate(LEARNING_RATE),
        ),
        ("gamv > ", "gamvMV > amvMVbd", "bdp > p"),
    ),
}
if importlib.util.find_spec("flashoptim_jax"):
    # The scales, of two bytes for 32 entries of a trace, are left out of the floor.
    CONTESTANTS["flash_adamw"] = Contestant(
        "FlashOptim's AdamW", _flash_adamw, ("gmvp > mvp",), trace=1
    )


def parameters_of(model: Callable[[], nnx.Module]) -> Any:
    """The shapes and dtypes of a model's parameters, as nested dictionaries."""
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(model), nnx.Param))


def transformer(
    layers: int = 12, width: int = 768, vocabulary: int = 18_432, context: int = 1_024
) -> Any:
    """The shapes of a decoder like GPT-2 small, with tied embeddings.

    >>> sum(leaf.size for leaf in jax.tree.leaves(transformer()))
    99998208
    """

    def dense(n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        return {"kernel": (n_in, n_out), "bias": (n_out,)}

    norm = {"scale": (width,), "bias": (width,)}
    block = {
        "norm1": norm,
        "attention": dense(width, 3 * width),
        "projection": dense(width, width),
        "norm2": norm,
        "expand": dense(width, 4 * width),
        "contract": dense(4 * width, width),
    }
    shapes = {
        "embedding": (vocabulary, width),
        "positions": (context, width),
        "blocks": {f"{layer:02}": block for layer in range(layers)},
        "norm": norm,
    }
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


TREES: dict[str, Callable[[], Any]] = {
    "leaf": lambda: jax.ShapeDtypeStruct((4_096, 4_096), jnp.float32),
    "mlp": lambda: parameters_of(lambda: models.MLP(rngs=nnx.Rngs(0))),
    "resnet18": lambda: parameters_of(lambda: models.ResNet(rngs=nnx.Rngs(0))),
    "transformer": transformer,
}
TITLES = {"leaf": "One leaf", "mlp": "MLP", "resnet18": "ResNet-18", "transformer": "Transformer"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured: seconds of rounds by tree, entries of the copied array."""

    seconds: dict[str, float]
    copied: int


SIZES: dict[harness.Preset, Size] = {
    # Muon takes seconds for a step of the transformer.
    "default": Size({"leaf": 60.0, "mlp": 30.0, "resnet18": 90.0, "transformer": 300.0}, 2**26),
    "smoke": Size({"mlp": 0.0}, 2**20),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Times the whole step of optimizers: update and apply_updates in one compiled program.

    Attributes:
      preset: "smoke" takes a few steps of the MLP alone, to see that everything works.
      go_on: keep the trees that the folder holds, if they were measured with the same commit,
        versions, device and settings, and measure the others.
      out: folder for table, figure, report and manifest.
    """

    preset: harness.Preset = "default"
    go_on: bool = False
    out: Path = Path("results/benchmarks-step")


@dataclasses.dataclass
class Arrays:
    """What all optimizers work on, one after the other, so that it is in memory once."""

    gradients: Any
    params: Any


class Step:
    """One optimizer's step, compiled without and with donation, and a state of its own.

    Donation gives the memory of parameters and state to the new ones.
    """

    def __init__(self, optimizer: Any, arrays: Arrays) -> None:
        # JAX pairs donated arrays with results of the same shape in the order in which they come.
        # State and parameters come in one order on both sides: else XLA must copy between them.
        def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
            if not hasattr(optimizer, "update"):
                params, state = optimizer.step(params, state, gradients)
                return state, params
            updates, state = optimizer.update(gradients, state, params)
            return state, optax.apply_updates(params, updates)

        self._arrays = arrays
        self._state = jax.jit(optimizer.init)(arrays.params)
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))
        self.compile_seconds = {}
        self._compiled = {}
        for donated in (False, True):
            start = time.perf_counter()
            jitted = jax.jit(step, donate_argnums=(1, 2) if donated else ())
            self._compiled[donated] = jitted.lower(*self._arguments()).compile()
            self.compile_seconds[donated] = time.perf_counter() - start

    def bytes_accessed(self, donated: bool) -> float:
        """XLA's count of what its operations read and write; ours where a compiler gives none."""
        compiled = self._compiled[donated]
        costs = compiled.cost_analysis()
        if costs is None:
            return float(hlo.traffic(compiled.as_text() or "").bytes)
        return float(costs["bytes accessed"])

    def plain(self) -> Any:
        """A step whose results are thrown away."""
        return self._compiled[False](*self._arguments())

    def donated(self) -> Any:
        """A step in place."""
        self._state, self._arrays.params = self._compiled[True](*self._arguments())
        return self._state, self._arrays.params

    def _arguments(self) -> tuple[Any, Any, Any]:
        return self._arrays.gradients, self._state, self._arrays.params


class Copy:
    """x + 1 in place, for a large array: what the machine can read and write."""

    def __init__(self, entries: int) -> None:
        self.bytes_accessed = 2 * FLOAT * entries
        self._add = jax.jit(lambda x: x + 1, donate_argnums=0)
        self._x = jnp.zeros(entries, jnp.float32)

    def __call__(self) -> jax.Array:
        """One more copy."""
        self._x = self._add(self._x)
        return self._x


def shortage(tree: str, copied: int) -> str | None:
    """Why a tree does not fit into the memory that is free, or None where it does.

    Needed are gradients, parameters, the states of all optimizers, and for the largest of them
    results and temporaries.
    """
    params = TREES[tree]()
    states = [
        _size(jax.eval_shape(contestant.make().init, params)) for contestant in CONTESTANTS.values()
    ]
    needed = SPARE * (4 * _size(params) + sum(states) + 2 * max(states) + FLOAT * copied)
    free = harness.free_memory()
    if needed <= free:
        return None
    return (
        f"{TITLES[tree]} skipped: it needs about {needed / GB:.1f} GB, "
        f"and {free / GB:.1f} GB of memory are free."
    )


def _size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def measure(tree: str, size: Size, progress: Progress) -> pd.DataFrame:
    """All optimizers on one tree: one row per optimizer, without and with donation."""
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(
        lambda leaf: jnp.asarray(0.01 * rng.standard_normal(leaf.shape, leaf.dtype)), TREES[tree]()
    )
    arrays = Arrays(gradients, jax.tree.map(jnp.ones_like, gradients))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(gradients))
    title = TITLES[tree]
    steps = {
        name: Step(CONTESTANTS[name].make(), arrays)
        for name in progress.track(CONTESTANTS, description=f"{title}: compiling")
    }
    copy = Copy(size.copied)
    calls: dict[tuple[str, bool], Callable[[], Any]] = {("copy", True): copy}
    for name, step in steps.items():
        calls[name, False], calls[name, True] = step.plain, step.donated
    taken = harness.time_in_turns(calls, size.seconds[tree], progress, f"{title}: rounds")
    bandwidth = copy.bytes_accessed / np.median(taken["copy", True])
    return pd.DataFrame(
        [
            {
                "tree": tree,
                "parameters": parameters,
                "optimizer": name,
                "donated": donated,
                "rounds": len(seconds),
                "median_ms": 1e3 * np.median(seconds),
                "best_ms": 1e3 * np.min(seconds),
                "ratio_to_adam": np.median(seconds / taken["adam", donated]),
                "bytes_per_parameter": step.bytes_accessed(donated) / parameters,
                "floor_bytes_per_parameter": CONTESTANTS[name].floor,
                "bandwidth_share": step.bytes_accessed(donated) / np.median(seconds) / bandwidth,
                "copy_bytes_per_second": bandwidth,
                "state_bytes": step.state_bytes,
                "compile_seconds": step.compile_seconds[donated],
            }
            for name, step in steps.items()
            for donated in (False, True)
            for seconds in (taken[name, donated],)
        ]
    )


def make_table(rows: pd.DataFrame) -> Table:
    """The rows of one tree, as readers should see them."""
    header = ["optimizer", "donated", "ms", "best", "x Adam", "B/param", "floor", "of copy"]
    table = [[*header, "state MB", "compile s"]]
    for row in rows.to_dict("records"):
        table.append(
            [
                CONTESTANTS[row["optimizer"]].label,
                "yes" if row["donated"] else "no",
                f"{row['median_ms']:.2f}",
                f"{row['best_ms']:.2f}",
                f"{row['ratio_to_adam']:.2f}",
                f"{row['bytes_per_parameter']:.1f}",
                f"{row['floor_bytes_per_parameter']}",
                f"{row['bandwidth_share']:.0%}",
                f"{row['state_bytes'] / 1e6:.2f}",
                f"{row['compile_seconds']:.2f}",
            ]
        )
    return table


def floor_table() -> Table:
    """The passes of each optimizer, and the bytes per parameter that they come to."""
    table = [["optimizer", "passes", "bytes per parameter"]]
    for contestant in CONTESTANTS.values():
        passes = "; ".join(contestant.passes).replace(" ;", ";")
        table.append([contestant.label, f"`{passes}`", f"{contestant.floor}"])
    return table


def describe(rows: pd.DataFrame) -> str:
    """What the rows of one tree are of."""
    first = rows.iloc[0]
    return (
        f"{TITLES[first['tree']]}: {first['parameters']:,} parameters, {first['rounds']} rounds; "
        f"copy in place {first['copy_bytes_per_second'] / GB:.1f} GB/s"
    )


def make_figure(rows: pd.DataFrame) -> Figure:
    """Median time of a step by optimizer, one panel per tree, beside the time of its floor."""
    trees = list(rows["tree"].unique())
    figure, panels = plt.subplots(
        1, len(trees), figsize=(2.5 + 3.5 * len(trees), 4.5), squeeze=False, layout="constrained"
    )
    for axes, tree in zip(panels[0], trees, strict=True):
        of_tree = rows[rows["tree"] == tree]
        names = list(of_tree["optimizer"].unique())
        heights = np.arange(len(names))[::-1]
        for donated, colour, offset in ((False, "#999999", 0.15), (True, "#0072B2", -0.15)):
            some = of_tree[of_tree["donated"] == donated]
            label = "donated" if donated else "not donated"
            axes.plot(some["median_ms"], heights + offset, "o", color=colour, label=label)
        floor = some["floor_bytes_per_parameter"] * some["parameters"]
        axes.plot(
            1e3 * floor / some["copy_bytes_per_second"],
            heights,
            "|",
            color="#D55E00",
            markersize=20,
            markeredgewidth=2,
            label="floor at the speed of a copy",
        )
        axes.set(xscale="log", xlabel="ms per step (median)", title=TITLES[tree])
        axes.xaxis.set_minor_formatter(NullFormatter())
        labels = [CONTESTANTS[name].label for name in names] if axes is panels[0, 0] else []
        axes.set_yticks(heights if labels else [], labels)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def make_report(rows: pd.DataFrame, notes: list[str], measured_on: str) -> str:
    """The report in Markdown."""
    sections = []
    for _, of_tree in rows.groupby("tree", sort=False):
        sections += [f"{describe(of_tree)}.", "", markdown_table(make_table(of_tree)), ""]
    return "\n".join(
        [
            "# The time of a step",
            "",
            f"{measured_on} What the columns mean is on the page on benchmarks.",
            "",
            *sections,
            *(f"{note}\n" for note in notes),
            "![milliseconds per step](figure.png)",
            "",
            "## Floors",
            "",
            "What each pass over a leaf reads > writes:",
            "",
            markdown_table(floor_table()),
            "",
        ]
    )


def run(config: Config, console: Console) -> None:
    """Measures, shows and writes down."""
    harness.prepare(config.out, "step")
    manifest = harness.make_manifest("step", config)
    size = SIZES[config.preset]
    known, _ = harness.kept(config.out, manifest) if config.go_on else ({}, [])
    frames = [rows for step in known.values() for _, rows in step.groupby("tree", sort=False)]
    done = {rows["tree"].iloc[0] for rows in frames}
    short = {tree: shortage(tree, size.copied) for tree in size.seconds if tree not in done}
    notes = [note for note in short.values() if note is not None]
    for note in notes:
        console.print(note)
    with harness.show_progress(console) as progress:
        for tree in (tree for tree, note in short.items() if note is None):
            frames.append(measure(tree, size, progress))
            console.print(describe(frames[-1]))
            show(make_table(frames[-1]), console)
            rows = pd.concat(frames, ignore_index=True)
            report = make_report(rows, notes, harness.measured_on(manifest))
            harness.write(config.out, manifest, {"step": rows}, make_figure(rows), report)
    console.print(f"Table, figure and report: {config.out}", soft_wrap=True)


if __name__ == "__main__":
    harness.command_line(Config, run, "step")
