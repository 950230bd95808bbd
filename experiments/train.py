"""Training one arm: whole epochs as one compiled program, for many cells at once.

A cell is one training run, a seed with a learning rate. The cells of a program are spread over the
axis ``seed`` of a mesh; each place on it takes its own one after the other (``lax.map``, faster on
a CPU) or together (``vmap``, faster on an accelerator). The devices of the axis ``data`` share
every batch. The images stay on the devices as bytes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import neuroplastic_optax as npx
from experiments.mesh import DATA, SEED, fsdp_spec, make_mesh, replicate
from experiments.optimizers import Diagnostics, Factory, Training
from experiments.preprocessing import Preprocess

EVALUATION_BATCH = 1000

Loop = Literal["map", "vmap"]
ModelFactory = Callable[[nnx.Rngs], nnx.Module]


class CellState(NamedTuple):
    """Everything that training changes, for one cell or stacked over many."""

    params: Any
    variables: Any  # what the model keeps besides its parameters, such as batch statistics
    opt_state: Any
    step: jax.Array  # int32


class Arrays(NamedTuple):
    """A split's inputs and labels; on the devices the inputs are still bytes."""

    inputs: Any  # uint8 [n, ...]
    labels: Any  # int32 [n] or, for sequences, [n, length]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned: model, preprocessing and batch size.

    Attributes:
      model: builds the model from the source of its initial parameters. Called with inputs,
        ``train`` and ``rngs``, it returns logits, classes last.
      preprocess: turns a batch of bytes into the model's input; its key is None in evaluation, and
        random augmentation belongs where it is not.
      batch_size: examples a step; the last step of an epoch takes what is left.
    """

    model: ModelFactory
    preprocess: Preprocess
    batch_size: int


class Program:
    """One arm on one task, compiled once for a number of cells.

    The seed fixes a cell's initial parameters, data order, augmentation and dropout, and nothing
    else does: the same seed gives every arm and every learning rate the same ones.

    Args:
      task: model, preprocessing and batch size.
      optimizer: makes the arm's optimizer from a traced learning rate.
      train: the training split.
      test: the split that is evaluated.
      epochs: epochs of the whole training.
      diagnostics: record plasticity diagnostics, where the arm has them.
      mesh: the devices, with the axes ``seed`` and ``data``; left out, all on the axis ``seed``.
      fsdp: spread parameters and the optimizer's state over the axis ``data`` too (fully sharded
        data parallel), so that no device keeps them whole between two steps.
      loop: how the cells at one place on the axis ``seed`` are run.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Factory,
        train: Arrays,
        test: Arrays,
        *,
        epochs: int,
        diagnostics: Diagnostics = False,
        mesh: Mesh | None = None,
        fsdp: bool = False,
        loop: Loop | None = None,
    ) -> None:
        self._task = task
        self._optimizer = optimizer
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: task.model(nnx.Rngs(0))))
        self._size = len(train.labels)
        steps = -(-self._size // task.batch_size)
        self._training = Training(steps, epochs, diagnostics)
        self._mesh = mesh or make_mesh()
        self._fsdp = fsdp
        self._loop = loop or ("map" if self._mesh.devices.flat[0].platform == "cpu" else "vmap")
        self._train, self._test = replicate((train, test), self._mesh)
        self._specs = self._state_specs()
        states = jax.tree.map(
            lambda spec: NamedSharding(self._mesh, PartitionSpec(SEED, *spec)), self._specs
        )
        self._cells = NamedSharding(self._mesh, PartitionSpec(SEED))
        self._init = self._spread(self._init_cell, states)
        self._epoch = self._spread(self._train_cell, (states, self._cells), donate=True)
        self._evaluate = self._spread(self._evaluate_cell, self._cells)

    @property
    def width(self) -> int:
        """Size of the axis ``seed``: a program's number of cells is a multiple of it."""
        return self._mesh.shape[SEED]

    def compile(
        self, seeds: npt.NDArray[np.integer[Any]], learning_rates: npt.NDArray[np.floating[Any]]
    ) -> None:
        """Compiles everything for a number of cells, so that no timing of an epoch includes it."""
        state = self.init(seeds, learning_rates)
        self._epoch.lower(state, self._place(seeds, learning_rates), self._train).compile()
        self._evaluate.lower(state, (), self._test).compile()

    def init(
        self, seeds: npt.NDArray[np.integer[Any]], learning_rates: npt.NDArray[np.floating[Any]]
    ) -> CellState:
        """Initial states of the cells, stacked; both arguments are [cells]."""
        return self._init((), self._place(seeds, learning_rates), self._train)

    def train_epoch(
        self,
        state: CellState,
        seeds: npt.NDArray[np.integer[Any]],
        learning_rates: npt.NDArray[np.floating[Any]],
    ) -> tuple[CellState, dict[str, jax.Array]]:
        """One epoch of every cell: new states, and metrics [cells] by name. Donates ``state``."""
        return self._epoch(state, self._place(seeds, learning_rates), self._train)

    def evaluate(self, state: CellState) -> dict[str, jax.Array]:
        """Loss and accuracy of every cell on the whole evaluated split: [cells] by name."""
        return self._evaluate(state, (), self._test)

    def _place(
        self, seeds: npt.NDArray[np.integer[Any]], learning_rates: npt.NDArray[np.floating[Any]]
    ) -> tuple[jax.Array, ...]:
        cells = (np.asarray(seeds, np.uint32), np.asarray(learning_rates, np.float32))
        return jax.device_put(cells, self._cells)

    def _state_specs(self) -> CellState:
        """How one cell's state lies on the axis ``data``."""
        seed, learning_rate = jnp.uint32(0), jnp.float32(0)  # the layout is the same for all
        state = jax.eval_shape(self._init_cell, (), seed, learning_rate, self._train)
        whole = jax.tree.map(lambda _: PartitionSpec(), state)
        if not self._fsdp:
            return whole

        def cut(leaf: jax.ShapeDtypeStruct) -> PartitionSpec:
            return fsdp_spec(leaf.shape, self._mesh.shape[DATA])

        traces = optax.tree.map_params(
            self._make(learning_rate, seed),
            cut,
            state.opt_state,
            transform_non_params=lambda _: PartitionSpec(),
        )
        return whole._replace(params=jax.tree.map(cut, state.params), opt_state=traces)

    def _spread(self, one: Callable[..., Any], shardings: Any, *, donate: bool = False) -> Any:
        """``one(state, *cell, data)`` for all cells of all devices in one program.

        Before there is a state it is ``()``; ``donate`` gives its memory to the result.
        ``shardings`` say how the result lies.
        """

        def share(states: Any, cells: tuple[jax.Array, ...], data: Arrays) -> Any:
            if self._loop == "map":
                return jax.lax.map(lambda x: one(x[0], *x[1], data), (states, cells))
            return jax.vmap(lambda state, cell: one(state, *cell, data))(states, cells)

        # Cells do not communicate; check_vma would ask for annotations on every scan's carry. XLA
        # divides a cell's work over the other axis, from the constraints on batch and state.
        spread = jax.shard_map(
            share,
            mesh=self._mesh,
            in_specs=(PartitionSpec(SEED), PartitionSpec(SEED), PartitionSpec()),
            out_specs=PartitionSpec(SEED),
            axis_names={SEED},
            check_vma=False,
        )
        return jax.jit(spread, out_shardings=shardings, donate_argnums=0 if donate else ())

    def _make(self, learning_rate: jax.Array, seed: jax.Array) -> optax.GradientTransformation:
        return self._optimizer(learning_rate, dataclasses.replace(self._training, seed=seed))

    def _init_cell(
        self, state: tuple[()], seed: jax.Array, learning_rate: jax.Array, data: Arrays
    ) -> CellState:
        del state, data
        model = self._task.model(nnx.Rngs(_key(seed, "init")))
        params, variables = nnx.state(model, nnx.Param, ...)
        optimizer = self._make(learning_rate, seed)
        return CellState(params, variables, optimizer.init(params), jnp.zeros([], jnp.int32))

    def _train_cell(
        self, state: CellState, seed: jax.Array, learning_rate: jax.Array, data: Arrays
    ) -> tuple[CellState, dict[str, jax.Array]]:
        batch_size, size = self._task.batch_size, self._size
        epoch = state.step // self._training.steps_per_epoch
        order = jax.random.permutation(jax.random.fold_in(_key(seed, "order"), epoch), size)
        step = functools.partial(self._step, seed=seed, learning_rate=learning_rate, data=data)

        whole = size // batch_size
        batches = order[: whole * batch_size].reshape(whole, batch_size)
        state, metrics = jax.lax.scan(step, state, batches)
        counts = jnp.full(whole, batch_size, jnp.float32)
        if size % batch_size:  # of its own shape: neither padded nor weighted
            state, last = step(state, order[whole * batch_size :])
            metrics = jax.tree.map(lambda a, b: jnp.append(a, b), metrics, last)
            counts = jnp.append(counts, jnp.float32(size % batch_size))
        loss = metrics.pop("train_loss")
        return state, {
            "train_loss": jnp.sum(loss * counts) / size,
            **{name: _over_epoch(name, metrics) for name in metrics},
        }

    def _step(
        self,
        state: CellState,
        indices: jax.Array,
        *,
        seed: jax.Array,
        learning_rate: jax.Array,
        data: Arrays,
    ) -> tuple[CellState, dict[str, jax.Array]]:
        key = jax.random.fold_in(_key(seed, "noise"), state.step)
        augmentation, dropout = jax.random.split(key)
        batch = _share_batch(Arrays(data.inputs[indices], data.labels[indices]))
        inputs = self._task.preprocess(batch.inputs, augmentation)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            # The model has its parameters whole, also where they lie in parts between two steps.
            params = jax.lax.with_sharding_constraint(params, PartitionSpec())
            # A copy: what the model changes in training belongs to the trace of the gradient.
            model = nnx.merge(self._graph, params, state.variables, copy=True)
            logits = model(inputs, train=True, rngs=nnx.Rngs(dropout))
            _, variables = nnx.state(model, nnx.Param, ...)
            return jnp.mean(_cross_entropy(logits, batch.labels)), variables

        (loss, variables), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        optimizer = self._make(learning_rate, seed)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "train_loss": loss,
            **_diagnostics(opt_state, params),
            **_histograms(opt_state, params),
        }
        state = CellState(params, variables, opt_state, state.step + 1)
        return jax.lax.with_sharding_constraint(state, self._specs), metrics

    def _evaluate_cell(self, state: CellState, data: Arrays) -> dict[str, jax.Array]:
        model = nnx.merge(self._graph, state.params, state.variables)

        def totals(batch: Arrays) -> tuple[jax.Array, jax.Array]:
            batch = _share_batch(batch)
            logits = model(self._task.preprocess(batch.inputs, None), train=False)
            loss = _cross_entropy(logits, batch.labels)
            return jnp.sum(loss), jnp.sum(jnp.argmax(logits, -1) == batch.labels)

        size = len(data.labels)
        batch = min(EVALUATION_BATCH, size)
        whole = size // batch
        batches = jax.tree.map(
            lambda x: x[: whole * batch].reshape(whole, batch, *x.shape[1:]), data
        )
        loss, correct = jax.tree.map(jnp.sum, jax.lax.map(totals, batches))
        if size % batch:
            rest = totals(jax.tree.map(lambda x: x[whole * batch :], data))
            loss, correct = loss + rest[0], correct + rest[1]
        return {
            "test_loss": loss / data.labels.size,
            "test_accuracy": correct / data.labels.size,
        }


def _share_batch(batch: Arrays) -> Arrays:
    """A batch shared by the devices of the axis ``data``, also where they do not divide it."""
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(DATA))


def _key(seed: jax.Array, purpose: Literal["init", "order", "noise"]) -> jax.Array:
    """A random stream of a seed; each purpose has its own."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "noise").index(purpose))


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


# The columns of the records by the names that the library gives.
NORMS = {
    "gradient_norm": "raw_gradient_norm",
    "homeostasis/gradient_norm": "raw_update_norm",
    "homeostasis/update_norm": "effective_update_norm",
}


def _diagnostics(opt_state: Any, params: Any) -> dict[str, jax.Array]:
    """What the optimizer did in its last step: statistics of α, and norms along the chain."""
    found = npx.diagnostics(opt_state, params)
    norms = {column: found[name] for name, column in NORMS.items() if name in found}
    alpha = {name: x for name, x in found.items() if name.startswith(("alpha_", "fraction_"))}
    return alpha | norms


def _histograms(opt_state: Any, params: Any) -> dict[str, jax.Array]:
    """The share of each leaf's entries with α from an edge on, up to the next, where it is kept."""
    histogram = optax.tree.get(opt_state, "alpha_histogram")
    if histogram is None:
        return {}
    edges = ("-inf", *(f"{edge:g}" for edge in npx.monitoring.ALPHA_EDGES))
    return {
        f"alpha_from_{edge}/{npx.masks.leaf_path(path)}": histogram[row, column]
        for row, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(params))
        for column, edge in enumerate(edges)
    }


def _over_epoch(name: str, steps: dict[str, jax.Array]) -> jax.Array:
    """A diagnostic of one epoch from those of its steps."""
    values = steps[name]
    statistic, _, leaf = name.partition("/")
    if statistic.endswith("_norm"):  # of all the epoch's updates, taken as one vector
        return jnp.sqrt(jnp.sum(jnp.square(values)))
    if statistic == "alpha_min":
        return jnp.min(values)
    if statistic == "alpha_max":
        return jnp.max(values)
    if statistic == "alpha_std":
        means = steps[f"alpha_mean/{leaf}" if leaf else "alpha_mean"]
        return jnp.sqrt(jnp.mean(values**2 + (means - jnp.mean(means)) ** 2))
    return jnp.mean(values)
