"""Training one arm: whole epochs as one compiled program, for many cells at once.

A cell is one training run, a seed with a learning rate. The cells of a program are spread over the
axis ``seed`` of a mesh; each place on it takes its own one after the other (``lax.map``, faster on
a CPU) or together (``vmap``, faster on an accelerator). The devices of the axis ``data`` share
every batch. The images stay on the devices as bytes.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
import optax.contrib
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import metrics
from experiments.mesh import DATA, SEED, Loop, default_loop, fsdp_spec, make_mesh, replicate, spread
from experiments.metrics import PerExample
from experiments.optimizers import Diagnostics, Factory, Training
from experiments.preprocessing import Preprocess
from experiments.schedules import Schedule
from experiments.step_records import diagnostics_of_step, over_epoch

EVALUATION_BATCH = 1000
# A model's first numbers are the same at this level, and compiled in half the time or a quarter.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 1}

ModelFactory = Callable[[nnx.Rngs], nnx.Module]
Seeds = npt.NDArray[np.integer[Any]]  # [cells]
Values = npt.NDArray[np.floating[Any]]  # [cells]
Hyperparameters = dict[str, jax.Array]  # of one cell, by name: learning_rate, and what else varies


@functools.lru_cache(2)
def initial_models(model: ModelFactory, mesh: Mesh, loop: Loop) -> Any:
    """Parameters and variables of models by seed: one program for all arms that train the model."""

    def one(state: tuple[()], seed: jax.Array, data: tuple[()]) -> tuple[Any, Any]:
        del state, data
        params, variables = nnx.state(model(nnx.Rngs(_key(seed, "init"))), nnx.Param, ...)
        return params, variables

    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return spread(
        one,
        mesh,
        loop,
        NamedSharding(mesh, PartitionSpec(SEED)),
        options=QUICKLY_COMPILED if on_cpu else None,
    )


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
class Problem:
    """What is minimised: model, preprocessing, batch size, loss and what is measured.

    Attributes:
      model: builds the model from the source of its initial parameters. Called with inputs,
        ``train`` and ``rngs``, it returns outputs, such as logits with the classes last.
      preprocess: turns a batch of bytes into the model's input; its key is None in evaluation, and
        random augmentation belongs where it is not.
      batch_size: examples per step; the last step of an epoch takes what is left.
      loss: of outputs, inputs and labels, a value per example.
      metrics: what is measured beside the loss, in the same way, by name.
    """

    model: ModelFactory
    preprocess: Preprocess
    batch_size: int
    loss: PerExample = metrics.cross_entropy
    metrics: Mapping[str, PerExample] = dataclasses.field(
        default_factory=lambda: {"accuracy": metrics.correct}
    )


class Program:
    """One arm on one problem, compiled once for a number of cells.

    The seed fixes a cell's initial parameters, data order, augmentation and dropout, and nothing
    else does: the same seed gives every arm and every learning rate the same ones.

    Args:
      problem: model, preprocessing, batch size, loss and metrics.
      optimizer: makes the arm's optimizer from a traced learning rate or, under a schedule, from
        one of a traced peak; from the training; and from the settings that vary, traced too.
      train: the training split.
      test: the split that is evaluated.
      epochs: epochs of the whole training.
      schedule: how the learning rate goes over training.
      searched: the settings of the optimizer that vary over the cells, beside the learning rate.
      diagnostics: record plasticity diagnostics, where the arm has them.
      mesh: the devices, with the axes ``seed`` and ``data``; left out, all on the axis ``seed``.
      fsdp: spread parameters and the optimizer's state over the axis ``data`` too (fully sharded
        data parallel), so that no device keeps them whole between two steps.
      loop: how the cells at one place on the axis ``seed`` are run.
    """

    def __init__(
        self,
        problem: Problem,
        optimizer: Factory,
        train: Arrays,
        test: Arrays,
        *,
        epochs: int,
        schedule: Schedule = "constant",
        searched: Sequence[str] = (),
        diagnostics: Diagnostics = False,
        mesh: Mesh | None = None,
        fsdp: bool = False,
        loop: Loop | None = None,
    ) -> None:
        self._problem = problem
        self._searched = tuple(searched)
        self._optimizer = optimizer
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: problem.model(nnx.Rngs(0))))
        self._size = len(train.labels)
        steps = -(-self._size // problem.batch_size)
        self._training = Training(steps, epochs, diagnostics, schedule=schedule)
        self._mesh = mesh or make_mesh()
        self._fsdp = fsdp
        self._loop = loop or default_loop(self._mesh)
        self._train, self._test = replicate((train, test), self._mesh)
        self._specs = self._state_specs()
        states = jax.tree.map(
            lambda spec: NamedSharding(self._mesh, PartitionSpec(SEED, *spec)), self._specs
        )
        self._cells = NamedSharding(self._mesh, PartitionSpec(SEED))
        self._models = initial_models(problem.model, self._mesh, self._loop)
        self._init = self._spread(self._init_cell, states, donate=not fsdp)
        self._epoch = self._spread(
            self._train_cell, (states, self._cells), donate=True, skipping=True
        )
        self._evaluate = self._spread(self._evaluate_cell, self._cells)

    @property
    def width(self) -> int:
        """Size of the axis ``seed``: a program's number of cells is a multiple of it."""
        return self._mesh.shape[SEED]

    def compile(self, seeds: Seeds, learning_rates: Values, **settings: Values) -> None:
        """Compiles everything for a number of cells, so that no timing of an epoch includes it.

        Each program is compiled in a thread of its own, while the next one is traced.
        """
        placed, values = self._place(seeds, learning_rates, settings)
        active = jax.device_put(np.ones(len(seeds), bool), self._cells)
        # The processes of a job may have to compile the same program at the same time.
        threads = 1 if jax.process_count() > 1 else None
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            compiled = []

            def start(program: Any, *arguments: Any) -> Any:
                traced = program.trace(*arguments)
                compiled.append(pool.submit(traced.lower().compile))
                return traced.out_info

            models = start(self._models, (), (placed,), ())
            state = start(self._init, models, (placed, values), self._train)
            start(self._epoch, state, (active, placed, values), self._train)
            start(self._evaluate, state, (), self._test)
            for program in compiled:
                program.result()

    def init(self, seeds: Seeds, learning_rates: Values, **settings: Values) -> CellState:
        """Initial states of the cells, stacked; all arguments are [cells].

        Args:
          seeds: of the cells.
          learning_rates: of the cells; the peaks, under a schedule.
          **settings: what else varies of the optimizer, by name.
        """
        placed, values = self._place(seeds, learning_rates, settings)
        models = self._models((), (placed,), ())
        return self._init(models, (placed, values), self._train)

    def train_epoch(
        self,
        state: CellState,
        seeds: Seeds,
        learning_rates: Values,
        *,
        active: npt.NDArray[np.bool_] | None = None,
        **settings: Values,
    ) -> tuple[CellState, dict[str, jax.Array]]:
        """One epoch of every cell: new states, and metrics [cells] by name. Donates ``state``.

        Places that are not ``active``, bool [cells], are left out, and what they give is zero.
        """
        cells = self._place(seeds, learning_rates, settings)
        every = np.ones(len(seeds), bool)
        active = jax.device_put(every if active is None else active, self._cells)
        return self._epoch(state, (active, *cells), self._train)

    def evaluate(self, state: CellState) -> dict[str, jax.Array]:
        """Loss and metrics of every cell on the whole evaluated split: [cells] by name."""
        return self._evaluate(state, (), self._test)

    def _place(
        self, seeds: Seeds, learning_rates: Values, settings: Mapping[str, Values]
    ) -> tuple[jax.Array, Hyperparameters]:
        values = {"learning_rate": learning_rates, **settings}
        cells = (
            np.asarray(seeds, np.uint32),
            {name: np.asarray(value, np.float32) for name, value in values.items()},
        )
        return jax.device_put(cells, self._cells)

    def _state_specs(self) -> CellState:
        """How one cell's state lies on the axis ``data``."""
        seed = jnp.uint32(0)  # the layout is that of every cell
        some = {name: jnp.float32(0.5) for name in ("learning_rate", *self._searched)}
        model = jax.eval_shape(lambda: nnx.state(self._problem.model(nnx.Rngs(0)), nnx.Param, ...))
        state = jax.eval_shape(self._init_cell, model, seed, some, self._train)
        whole = jax.tree.map(lambda _: PartitionSpec(), state)
        if not self._fsdp:
            return whole

        def cut(leaf: jax.ShapeDtypeStruct) -> PartitionSpec:
            return fsdp_spec(leaf.shape, self._mesh.shape[DATA])

        traces = optax.tree.map_params(
            self._make(some, seed),
            cut,
            state.opt_state,
            transform_non_params=lambda _: PartitionSpec(),
        )
        return whole._replace(params=jax.tree.map(cut, state.params), opt_state=traces)

    def _spread(self, one: Callable[..., Any], shardings: Any, **how: Any) -> Any:
        return spread(one, self._mesh, self._loop, shardings, **how)

    def _make(
        self, values: Hyperparameters, seed: jax.Array
    ) -> optax.GradientTransformationExtraArgs:
        training = dataclasses.replace(self._training, seed=seed)
        settings = {name: value for name, value in values.items() if name != "learning_rate"}
        made = self._optimizer(values["learning_rate"], training, **settings)
        return optax.with_extra_args_support(made)

    def _init_cell(
        self,
        model: tuple[Any, Any],
        seed: jax.Array,
        values: Hyperparameters,
        data: Arrays,
    ) -> CellState:
        del data
        params, variables = model
        optimizer = self._make(values, seed)
        return CellState(params, variables, optimizer.init(params), jnp.zeros([], jnp.int32))

    def _train_cell(
        self, state: CellState, seed: jax.Array, values: Hyperparameters, data: Arrays
    ) -> tuple[CellState, dict[str, jax.Array]]:
        batch_size, size = self._problem.batch_size, self._size
        epoch = state.step // self._training.steps_per_epoch
        order = jax.random.permutation(jax.random.fold_in(_key(seed, "order"), epoch), size)
        step = functools.partial(self._step, seed=seed, values=values, data=data)

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
            **{name: over_epoch(name, metrics) for name in metrics},
        }

    def _step(
        self,
        state: CellState,
        indices: jax.Array,
        *,
        seed: jax.Array,
        values: Hyperparameters,
        data: Arrays,
    ) -> tuple[CellState, dict[str, jax.Array]]:
        key = jax.random.fold_in(_key(seed, "noise"), state.step)
        augmentation, dropout = jax.random.split(key)
        batch = _share_batch(Arrays(data.inputs[indices], data.labels[indices]))
        inputs = self._problem.preprocess(batch.inputs, augmentation)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            # The model has its parameters whole, also where they lie in parts between two steps.
            params = jax.lax.with_sharding_constraint(params, PartitionSpec())
            # A copy: what the model changes in training belongs to the trace of the gradient.
            model = nnx.merge(self._graph, params, state.variables, copy=True)
            outputs = model(inputs, train=True, rngs=nnx.Rngs(dropout))
            _, variables = nnx.state(model, nnx.Param, ...)
            return jnp.mean(self._problem.loss(outputs, inputs, batch.labels)), variables

        def value_fn(params: Any) -> jax.Array:
            return loss_fn(params)[0]

        (loss, variables), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = self._make(values, seed).update(
            gradients,
            state.opt_state,
            state.params,
            # Of this batch, for the optimizers that take them.
            value=loss,
            grad=gradients,
            value_fn=value_fn,
        )
        params = optax.apply_updates(state.params, updates)
        metrics = {"train_loss": loss, **diagnostics_of_step(opt_state, params)}
        state = CellState(params, variables, opt_state, state.step + 1)
        return jax.lax.with_sharding_constraint(state, self._specs), metrics

    def _evaluate_cell(self, state: CellState, data: Arrays) -> dict[str, jax.Array]:
        params = evaluated_params(state.opt_state, state.params)
        model = nnx.merge(self._graph, params, state.variables)
        measures = {"loss": self._problem.loss, **self._problem.metrics}

        def totals(batch: Arrays) -> dict[str, tuple[jax.Array, jax.Array]]:
            batch = _share_batch(batch)
            inputs = self._problem.preprocess(batch.inputs, None)
            outputs = model(inputs, train=False)
            of_batch = {
                name: measure(outputs, inputs, batch.labels) for name, measure in measures.items()
            }
            return {name: (jnp.sum(x), jnp.float32(x.size)) for name, x in of_batch.items()}

        size = len(data.labels)
        batch = min(EVALUATION_BATCH, size)
        whole = size // batch
        batches = jax.tree.map(
            lambda x: x[: whole * batch].reshape(whole, batch, *x.shape[1:]), data
        )
        found = jax.tree.map(jnp.sum, jax.lax.map(totals, batches))
        if size % batch:
            rest = totals(jax.tree.map(lambda x: x[whole * batch :], data))
            found = jax.tree.map(jnp.add, found, rest)
        return {f"test_{name}": total / count for name, (total, count) in found.items()}


def evaluated_params(opt_state: Any, params: Any) -> Any:
    """The parameters that an optimizer's authors evaluate: those of the steps, or their average.

    Schedule-free optimizers compute gradients at one place and are judged at another one.

    References:
      Defazio et al., The road less scheduled, 2024.
    """
    kind = optax.contrib.ScheduleFreeState
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    for found in (leaf for leaf in leaves if isinstance(leaf, kind)):
        return optax.contrib.schedule_free_eval_params(found, params)
    return params


def _share_batch(batch: Arrays) -> Arrays:
    """A batch shared by the devices of the axis ``data``, also where they do not divide it."""
    return jax.lax.with_sharding_constraint(batch, PartitionSpec(DATA))


def _key(seed: jax.Array, purpose: Literal["init", "order", "noise"]) -> jax.Array:
    """A random stream of a seed; each purpose has its own."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "noise").index(purpose))
