"""Training programs: many cells in one program, paired by their seeds, nothing padded or lost."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx
from experiments import models, train
from experiments.arms import ARMS
from experiments.mesh import make_mesh
from experiments.optimizers import Factory, Training
from experiments.step_records import NORMS
from experiments.studies.dynamics import histogram_columns
from experiments.train import Arrays, CellState, Problem, Program

IMAGES, TEST_IMAGES, BATCH, EPOCHS = 70, 50, 16, 2
STEPS = 5  # four of 16 images and one of 6
SEEDS = (0, 1, 2, 3, 4)
NOTES = ("images", "augmentations", "factors")


def split(size: int, seed: int) -> Arrays:
    """Images of random bytes but for the first, which numbers them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(size)
    return Arrays(images, rng.integers(0, 10, size).astype(np.int32))


TRAIN, TEST = split(IMAGES, seed=0), split(TEST_IMAGES, seed=1)


def preprocess(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """Bytes to [0, 1]; the augmentation is one more feature, random for the whole batch."""
    augmentation = 0.0 if key is None else jax.random.uniform(key)
    features = images.reshape(len(images), -1).astype(jnp.float32) / 255
    return jnp.pad(features, ((0, 0), (0, 1)), constant_values=augmentation)


class Recorder(nnx.Module):
    """A linear model that notes which images it saw, and what was drawn for each step.

    In place of dropout it scales the inputs of a step by a random factor.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (17, 10)))
        self.seen = nnx.Variable(jnp.zeros((), int))
        self.notes = nnx.Variable(jnp.full((EPOCHS * IMAGES, len(NOTES)), -1, jnp.float32))

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:
        if train:
            factor = jax.random.uniform(rngs.dropout())
            notes = jnp.stack([x[:, 0], x[:, -1], jnp.full(len(x), factor)], axis=1)
            where = (self.seen[...], 0)
            self.notes[...] = jax.lax.dynamic_update_slice(self.notes[...], notes, where)
            self.seen[...] += len(x)
            x = factor * x
        return x @ self.kernel[...]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a program did, on the host: arrays have the cells first."""

    initial: np.ndarray  # kernels
    kernels: list[np.ndarray]  # after each epoch
    metrics: list[dict[str, np.ndarray]]  # of each epoch
    steps: np.ndarray
    notes: dict[str, np.ndarray]

    def cells(self, cells: slice | list[int]) -> "Trained":
        return jax.tree.map(lambda x: x[cells], self)


jax.tree_util.register_dataclass(Trained)


def kernel(state: CellState) -> np.ndarray:
    return np.array(nnx.to_pure_dict(state.params)["kernel"])


def make_program(optimizer: Factory, *, batch_size: int = BATCH, **options) -> Program:
    options = {"train": TRAIN, "test": TEST, "mesh": make_mesh(devices=jax.devices()[:1])} | options
    return Program(Problem(Recorder, preprocess, batch_size), optimizer, epochs=EPOCHS, **options)


def run(program: Program, seeds: tuple[int, ...], rates: tuple[float, ...]) -> Trained:
    cells = (np.array(seeds), np.array(rates))
    state = program.init(*cells)
    initial, kernels, metrics = kernel(state), [], []
    for _ in range(EPOCHS):
        state, trained = program.train_epoch(state, *cells)
        kernels.append(kernel(state))
        metrics.append(jax.device_get({**trained, **program.evaluate(state)}))
    noted = np.moveaxis(np.array(nnx.to_pure_dict(state.variables)["notes"]), -1, 0)
    notes = dict(zip(NOTES, noted, strict=True))
    notes["images"] = np.rint(255 * notes["images"]).astype(int)
    return Trained(initial, kernels, metrics, np.array(state.step), notes)


def assert_equal(one: Trained, other: Trained) -> None:
    jax.tree.map(functools.partial(np.testing.assert_array_equal, strict=True), one, other)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def inputs_of(arrays: Arrays) -> np.ndarray:
    """The model's inputs in evaluation."""
    return np.pad(arrays.inputs.reshape(len(arrays.inputs), -1) / 255, ((0, 0), (0, 1)))


def loss_and_gradient(
    weights: np.ndarray, x: np.ndarray, labels: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of a linear model in float64."""
    log_p = log_softmax(x @ weights)
    hot = np.eye(10)[labels]
    return -np.mean(np.sum(hot * log_p, -1)), x.T @ (np.exp(log_p) - hot) / len(x)


def batches_of(trained: Trained, cell: int, epoch: int, batch_size: int, size: int) -> Iterator:
    """Inputs and labels of an epoch's steps, as the model noted them."""
    images, factors, augmentations = (
        trained.notes[name][cell, epoch * size : (epoch + 1) * size]
        for name in ("images", "factors", "augmentations")
    )
    for start in range(0, size, batch_size):
        of_step = slice(start, start + batch_size)
        x = inputs_of(TRAIN)[images[of_step]]
        x[:, -1] = augmentations[of_step]
        yield factors[of_step, None] * x, TRAIN.labels[images[of_step]]


class Counter:
    """SGD, counting how often and with what it is asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.rates: list[object] = []

    def __call__(self, learning_rate: object, training: Training) -> optax.GradientTransformation:
        assert training.steps_per_epoch == STEPS
        self.calls += 1
        self.rates.append(learning_rate)
        return optax.sgd(learning_rate)


RATES = {"sgd": 0.1, "adam": 0.01}
PAIRED_SEEDS = (0, 1, 0, 1)


@pytest.fixture(scope="module")
def sgd_program() -> Program:
    return make_program(ARMS["sgd"].make, diagnostics=True)


@pytest.fixture(scope="module")
def paired(sgd_program: Program) -> dict[str, Trained]:
    """Two arms, two seeds, at the arm's learning rate (the first two cells) and at zero."""
    programs = {"sgd": sgd_program, "adam": make_program(ARMS["adam"].make, diagnostics=True)}
    return {
        arm: run(program, PAIRED_SEEDS, (RATES[arm], RATES[arm], 0, 0))
        for arm, program in programs.items()
    }


FULL_RATES = (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.fixture(scope="module")
def five() -> Trained:
    """Five cells of the full method in one program on one device, one after the other."""
    program = make_program(ARMS["full"].make, diagnostics=True, loop="map")
    return run(program, SEEDS, FULL_RATES)


@pytest.fixture
def _models_anew() -> Iterator[None]:
    """No model is started by a program that was compiled with other options."""
    train.initial_models.cache_clear()
    yield
    train.initial_models.cache_clear()


class TestManyCellsInOneProgram:
    @pytest.mark.usefixtures("fully_optimized", "_models_anew")
    def test_give_bit_for_bit_what_a_program_of_their_own_gives(self):
        program = make_program(ARMS["full"].make, loop="map")
        together = run(program, SEEDS, FULL_RATES)
        for cell, (seed, rate) in enumerate(zip(SEEDS, FULL_RATES, strict=True)):
            alone, among = run(program, (seed,), (rate,)), together.cells([cell])
            for one, other in zip(alone.metrics, among.metrics, strict=True):
                # A sum over the steps, outside of them: its order is the compiler's choice.
                sums = one.pop("train_loss"), other.pop("train_loss")
                np.testing.assert_allclose(*sums, rtol=3e-7)
            assert_equal(alone, among)

    def test_give_the_same_on_any_number_of_devices(self, five: Trained):
        devices = jax.devices()[:4]
        mesh = make_mesh(devices=devices)
        program = make_program(ARMS["full"].make, diagnostics=True, mesh=mesh)
        assert program.width == len(devices)
        padding = -len(SEEDS) % len(devices)
        spread = run(program, SEEDS + (9,) * padding, FULL_RATES + (0.9,) * padding)
        assert_equal(five, spread.cells(slice(len(SEEDS))))

    def test_together_give_the_same_but_for_rounding(self, five: Trained):
        program = make_program(ARMS["full"].make, diagnostics=True, loop="vmap")
        together = run(program, SEEDS, FULL_RATES)
        np.testing.assert_array_equal(five.notes["images"], together.notes["images"])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), five, together
        )

    def test_differ_by_seed(self, five: Trained):
        for values in (five.initial, five.notes["images"], five.notes["factors"]):
            assert len({value.tobytes() for value in values}) == len(SEEDS)


class TestPairing:
    """A seed gives every arm and every learning rate the same start, order and noise."""

    def test_same_initial_parameters(self, paired: dict[str, Trained]):
        one, other = (trained.initial for trained in paired.values())
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[:2], one[2:])
        assert not np.array_equal(one[0], one[1])

    @pytest.mark.parametrize("what", ["images", "factors", "augmentations"])
    def test_same_order_and_noise(self, what: str, paired: dict[str, Trained]):
        one, other = (trained.notes[what] for trained in paired.values())
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[:2], one[2:])
        assert not np.array_equal(one[0], one[1])

    def test_same_losses_where_nothing_is_learned(self, paired: dict[str, Trained]):
        for epoch in range(EPOCHS):
            one, other = (t.metrics[epoch]["train_loss"][2:] for t in paired.values())
            np.testing.assert_array_equal(one, other)
            assert one[0] != one[1]

    def test_other_losses_where_something_is(self, paired: dict[str, Trained]):
        one, other = (t.metrics[-1]["train_loss"][:2] for t in paired.values())
        assert (one != other).all()


class TestEpoch:
    def test_shows_every_image_once_in_an_order_of_its_own(self, paired: dict[str, Trained]):
        for order in paired["sgd"].notes["images"]:
            first, second = order.reshape(EPOCHS, IMAGES)
            np.testing.assert_array_equal(np.sort(first), np.arange(IMAGES))
            np.testing.assert_array_equal(np.sort(second), np.arange(IMAGES))
            assert not np.array_equal(first, second)

    def test_takes_a_step_a_batch_with_the_partial_last_one(self, paired: dict[str, Trained]):
        assert (paired["sgd"].steps == EPOCHS * STEPS).all()

    def test_draws_anew_for_every_step_and_purpose(self, paired: dict[str, Trained]):
        notes = paired["sgd"].notes
        drawn = np.stack([notes["factors"][0], notes["augmentations"][0]])
        assert len(np.unique(drawn)) == 2 * EPOCHS * STEPS

    @pytest.mark.parametrize(("size", "batch_size"), [(70, 16), (64, 16), (70, 100)])
    def test_is_plain_sgd_over_its_batches(
        self, size: int, batch_size: int, paired: dict[str, Trained]
    ):
        """In float64, with every image weighing the same; also the last step's few."""
        if (size, batch_size) == (IMAGES, BATCH):
            trained = paired["sgd"]
        else:
            arrays = Arrays(TRAIN.inputs[:size], TRAIN.labels[:size])
            program = make_program(ARMS["sgd"].make, train=arrays, batch_size=batch_size)
            trained = run(program, (3,), (RATES["sgd"],))
        weights = trained.initial[0].astype(np.float64)
        for epoch in range(EPOCHS):
            total = 0.0
            for x, labels in batches_of(trained, 0, epoch, batch_size, size):
                loss, gradient = loss_and_gradient(weights, x, labels)
                total += loss * len(x)
                weights -= RATES["sgd"] * gradient
            np.testing.assert_allclose(trained.kernels[epoch][0], weights, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                trained.metrics[epoch]["train_loss"][0], total / size, rtol=1e-6
            )
        assert trained.steps[0] == EPOCHS * -(-size // batch_size)


class TestEvaluation:
    @pytest.mark.parametrize("batch", [16, 25, 1000])
    def test_is_over_the_whole_split(
        self, batch: int, sgd_program: Program, monkeypatch: pytest.MonkeyPatch
    ):
        """Also where the last batch is a part of one, a whole one, or the only one."""
        state = sgd_program.init(np.array(PAIRED_SEEDS), np.zeros(4))
        monkeypatch.setattr(train, "EVALUATION_BATCH", batch)
        weights = kernel(state)
        metrics = make_program(ARMS["sgd"].make).evaluate(state)
        logits = inputs_of(TEST) @ weights.astype(np.float64)
        log_p = log_softmax(logits)
        for cell in range(len(weights)):
            loss = -np.mean(log_p[cell][np.arange(TEST_IMAGES), TEST.labels])
            accuracy = np.mean(logits[cell].argmax(-1) == TEST.labels)
            np.testing.assert_allclose(metrics["test_loss"][cell], loss, rtol=1e-6)
            np.testing.assert_allclose(metrics["test_accuracy"][cell], accuracy, rtol=1e-6)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """The programs that XLA compiles."""
    found: list[str] = []

    def listen(event: str, seconds: float, *, fun_name: str = "", **_: str) -> None:
        del seconds
        if event.endswith("backend_compile_duration"):
            found.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


class TestCompilation:
    @pytest.mark.parametrize("number", [1, 4])
    def test_is_once_for_all_epochs_seeds_and_learning_rates(self, number: int):
        """Programs of model, optimizer, epoch and evaluation, ahead of any timing."""
        train.initial_models.cache_clear()
        optimizer = Counter()
        program = make_program(optimizer, mesh=make_mesh(devices=jax.devices()[:number]))
        with compilations() as ahead:
            cells = np.array([0, 1, 2, 3]), np.array([0.1, 0.2, 0.3, 0.4])
            program.compile(*cells)
        assert len(ahead) == 4
        calls = optimizer.calls
        with compilations() as later:
            run(program, (0, 1, 2, 3), (0.1, 0.2, 0.3, 0.4))
            run(program, (7, 8, 9, 7), (0.5, 0.0, 0.1, 0.1))
            cells = np.array([5, 5, 6, 6]), np.array([0.5, 0.6, 0.5, 0.6])
            program.compile(*cells)
        assert later == []
        assert optimizer.calls == calls
        assert all(isinstance(rate, jax.core.Tracer) for rate in optimizer.rates)


class TestPlaces:
    def test_that_are_not_active_are_not_trained_and_change_nothing_beside_them(self):
        program = make_program(ARMS["sgd"].make)
        cells = np.array([0, 1, 2]), np.array([0.1, 0.2, 0.3])
        _, every = program.train_epoch(program.init(*cells), *cells)
        active = np.array([True, True, False])
        state, some = program.train_epoch(program.init(*cells), *cells, active=active)
        assert some["train_loss"].tolist() == (active * np.array(every["train_loss"])).tolist()
        assert state.step.tolist() == [STEPS, STEPS, 0]


class TestModels:
    def test_are_started_by_one_program_for_all_arms(self):
        train.initial_models.cache_clear()
        for arm in ("sgd", "momentum"):
            make_program(ARMS[arm].make).init(np.array([0]), np.array([0.1]))
        assert train.initial_models.cache_info().misses == 1

    @pytest.mark.usefixtures("fully_optimized", "_models_anew")
    @pytest.mark.parametrize(
        ("model", "loop"),
        [
            (lambda rngs: models.MLP(features=100, hidden=(50,), rngs=rngs), "map"),
            (lambda rngs: models.Transformer(16, length=8, depth=1, width=16, rngs=rngs), "vmap"),
        ],
        ids=["uniform", "normal"],
    )
    def test_have_the_numbers_that_a_program_of_the_usual_level_gives(
        self, model: Any, loop: Any, monkeypatch: pytest.MonkeyPatch
    ):
        mesh = make_mesh(devices=jax.devices()[:1])
        cells = jax.device_put(np.arange(3, dtype=np.uint32), NamedSharding(mesh, P("seed")))
        quickly = train.initial_models(model, mesh, loop)((), (cells,), ())
        monkeypatch.setattr(train, "QUICKLY_COMPILED", None)
        train.initial_models.cache_clear()
        usually = train.initial_models(model, mesh, loop)((), (cells,), ())
        chex.assert_trees_all_equal(quickly, usually)


class TestMemory:
    @pytest.mark.usefixtures("paired")
    def test_images_stay_on_the_device_as_bytes(self):
        images = [x for x in jax.live_arrays() if x.shape == TRAIN.inputs.shape]
        assert images
        assert {x.dtype for x in images} == {np.dtype(np.uint8)}

    def test_only_a_batch_of_them_is_ever_unpacked(self):
        shapes = []

        def spy(images: jax.Array, key: jax.Array | None) -> jax.Array:
            shapes.append((images.shape, images.dtype))
            return preprocess(images, key)

        task = Problem(Recorder, spy, BATCH)
        program = Program(task, ARMS["sgd"].make, TRAIN, TEST, epochs=1)
        cells = (np.zeros(program.width), np.zeros(program.width))
        state = program.init(*cells)
        state, _ = jax.eval_shape(lambda state: program.train_epoch(state, *cells), state)
        jax.eval_shape(program.evaluate, state)
        byte = np.dtype(np.uint8)
        whole, rest, test = (((size, 4, 4, 1), byte) for size in (BATCH, IMAGES % BATCH, 50))
        assert set(shapes) == {whole, rest, test}


Steps = list[list[dict[str, np.ndarray]]]


@pytest.fixture(scope="module")
def steps(five: Trained) -> Steps:
    """Diagnostics of each step of each epoch of the third cell, from a loop over them."""
    optimizer = ARMS["full"].make(FULL_RATES[2], Training(STEPS, EPOCHS, diagnostics=True))
    update = jax.jit(optimizer.update)
    weights = jnp.asarray(five.initial[2])
    opt_state = optimizer.init(weights)
    epochs: Steps = [[] for _ in range(EPOCHS)]
    for epoch, of_epoch in enumerate(epochs):
        for x, labels in batches_of(five, 2, epoch, BATCH, IMAGES):
            _, gradient = loss_and_gradient(np.asarray(weights, np.float64), x, labels)
            updates, opt_state = update(jnp.asarray(gradient, jnp.float32), opt_state, weights)
            weights = optax.apply_updates(weights, updates)
            measured = jax.device_get(npx.diagnostics(opt_state))
            of_epoch.append({NORMS.get(name, name): value for name, value in measured.items()})
    np.testing.assert_allclose(five.kernels[-1][2], weights, rtol=1e-4, atol=1e-6)
    return epochs


class TestDiagnostics:
    def assert_epoch(self, five: Trained, steps: Steps, name: str, over_steps) -> None:
        for epoch in range(EPOCHS):
            expected = over_steps(np.array([step[name] for step in steps[epoch]], np.float64))
            np.testing.assert_allclose(five.metrics[epoch][name][2], expected, rtol=1e-4)

    @pytest.mark.parametrize(
        "name",
        [
            "raw_gradient_norm",
            "raw_update_norm",
            "effective_update_norm",
        ],
    )
    def test_norms_are_those_of_all_updates_as_one_vector(
        self, name: str, five: Trained, steps: Steps
    ):
        self.assert_epoch(five, steps, name, np.linalg.norm)

    @pytest.mark.parametrize(
        "name", ["alpha_mean", "fraction_at_min", "fraction_at_max", "fraction_negative"]
    )
    def test_means_and_shares_are_means_over_the_steps(
        self, name: str, five: Trained, steps: Steps
    ):
        self.assert_epoch(five, steps, name, np.mean)

    def test_extremes_are_extremes_over_the_steps(self, five: Trained, steps: Steps):
        self.assert_epoch(five, steps, "alpha_min", np.min)
        self.assert_epoch(five, steps, "alpha_max", np.max)

    def test_the_deviation_is_that_of_all_steps_values_together(self, five: Trained, steps: Steps):
        for epoch in range(EPOCHS):
            means = np.array([step["alpha_mean"] for step in steps[epoch]], np.float64)
            deviations = np.array([step["alpha_std"] for step in steps[epoch]], np.float64)
            expected = np.sqrt(np.mean(deviations**2) + np.var(means))
            np.testing.assert_allclose(five.metrics[epoch]["alpha_std"][2], expected, rtol=1e-4)

    def test_are_kept_by_arms_that_have_them_and_no_others(
        self, five: Trained, paired: dict[str, Trained]
    ):
        results = {"train_loss", "test_loss", "test_accuracy"}
        fields = {*npx.monitoring.STATISTICS, *NORMS.values()}
        assert set(five.metrics[0]) == results | fields
        assert set(paired["sgd"].metrics[0]) == set(paired["adam"].metrics[0]) == results

    def test_have_a_histogram_of_each_leaf_that_is_the_mean_over_the_steps(self):
        program = make_program(ARMS["full"].make, diagnostics="per_leaf")
        metrics = run(program, (0,), (0.1,)).metrics
        for of_epoch in metrics:
            shares = np.array([of_epoch[name] for name in histogram_columns("kernel")])
            assert shares.sum() == pytest.approx(1, abs=1e-5)
            at_min = of_epoch["fraction_at_min/kernel"] - of_epoch["fraction_negative/kernel"]
            assert shares[:4].sum() >= at_min - 1e-6, "bins that end above 0.2 hold α = 0.2"
