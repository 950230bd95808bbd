"""From a workload to examples, model and preprocessing."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import tasks
from experiments.arms import ARMS
from experiments.cells import Workload
from experiments.dataset import (
    DataError,
    Dataset,
    evaluated_subset,
    subset,
    validation_split,
    with_label_noise,
)
from experiments.mesh import make_mesh
from experiments.models import Transformer
from experiments.train import Arrays, Program

LABELS = np.repeat(np.arange(10), 6).astype(np.int32)
DATASET = Dataset(
    name="tiny",
    train_images=np.arange(60 * 16, dtype=np.uint32).astype(np.uint8).reshape(60, 4, 4, 1),
    train_labels=LABELS,
    test_images=np.full((7, 4, 4, 1), 255, np.uint8),
    test_labels=np.arange(7, dtype=np.int32),
    source="made up",
)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets that are loaded; each is the tiny one."""
    names: list[str] = []

    def load_dataset(name: str, *, data_dir: Path, raw_dir: Path | None) -> Dataset:
        assert (data_dir, raw_dir) == (Path("data"), Path("raw"))
        names.append(name)
        return DATASET

    tasks._load_whole.cache_clear()
    monkeypatch.setattr(tasks, "load_dataset", load_dataset)
    yield names
    tasks._load_whole.cache_clear()


def load(workload: Workload) -> Dataset:
    return tasks.load(workload, data_dir=Path("data"), raw_dir=Path("raw"))


class TestLoad:
    def test_gives_the_whole_data_set_and_reads_it_once(self, loads: list[str]):
        assert load(Workload("mnist")) is load(Workload("mnist", epochs=3)) is DATASET
        assert loads == ["mnist"]

    @pytest.mark.usefixtures("loads")
    def test_holds_out_a_sixth_of_the_training_images_and_no_test_image(self):
        dataset = load(Workload("mnist", split="validation"))
        assert dataset.checksum == validation_split(DATASET, size=10, seed=0).checksum
        assert len(dataset.train_labels) == 50
        np.testing.assert_array_equal(np.bincount(dataset.test_labels), [1] * 10)
        assert (dataset.test_images != 255).any(axis=(1, 2, 3)).all()

    @pytest.mark.usefixtures("loads")
    def test_takes_a_share_of_the_training_images_and_every_test_image(self):
        dataset = load(Workload("mnist", fraction=0.5))
        assert dataset.checksum == subset(DATASET, 0.5, seed=0).checksum
        assert len(dataset.train_labels) == 30
        assert dataset.test_images is DATASET.test_images

    @pytest.mark.usefixtures("loads")
    def test_holds_out_the_same_images_from_every_share(self):
        whole = load(Workload("mnist", split="validation"))
        part = load(Workload("mnist", split="validation", fraction=0.4))
        np.testing.assert_array_equal(part.test_images, whole.test_images)
        np.testing.assert_array_equal(np.bincount(part.train_labels), [2] * 10)

    @pytest.mark.usefixtures("loads")
    @pytest.mark.parametrize("split", ["test", "validation"])
    def test_takes_as_many_examples_as_a_small_task_has(
        self, split: str, monkeypatch: pytest.MonkeyPatch
    ):
        small = dataclasses.replace(tasks.TASKS["mnist"], examples=20)
        monkeypatch.setitem(tasks.TASKS, "small", small)
        dataset = load(Workload("small", split=split))
        np.testing.assert_array_equal(np.bincount(dataset.train_labels), [2] * 10)
        whole = load(Workload("mnist", split=split))
        np.testing.assert_array_equal(dataset.test_images, whole.test_images)

    @pytest.mark.usefixtures("loads")
    @pytest.mark.parametrize("split", ["test", "validation"])
    def test_evaluates_on_as_many_examples_as_a_small_task_says(
        self, split: str, monkeypatch: pytest.MonkeyPatch
    ):
        small = dataclasses.replace(tasks.TASKS["mnist"], evaluated=6)
        monkeypatch.setitem(tasks.TASKS, "small", small)
        dataset, whole = (load(Workload(name, split=split)) for name in ("small", "mnist"))
        assert dataset.checksum == evaluated_subset(whole, 6, seed=0).checksum
        assert len(dataset.train_labels) == len(whole.train_labels)

    @pytest.mark.usefixtures("loads")
    def test_refuses_to_evaluate_on_more_examples_than_there_are(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        small = dataclasses.replace(tasks.TASKS["mnist"], evaluated=7_000)
        monkeypatch.setitem(tasks.TASKS, "small", small)
        with pytest.raises(DataError, match="small has 7000 evaluated examples, and its data"):
            load(Workload("small"))

    @pytest.mark.usefixtures("loads")
    def test_refuses_a_small_task_of_more_examples_than_there_are(self):
        said = "mnist_small has 10000 training examples, and its data 60"
        with pytest.raises(DataError, match=said):
            load(Workload("mnist_small"))

    @pytest.mark.usefixtures("loads")
    def test_makes_labels_noisy_in_training_alone(self):
        dataset = load(Workload("mnist", label_noise=0.2))
        assert dataset.checksum == with_label_noise(DATASET, 0.2, seed=0).checksum
        assert (dataset.train_labels != LABELS).sum() == 12
        assert dataset.test_labels is DATASET.test_labels


class TestTask:
    @pytest.fixture
    def task(self) -> tasks.Task:
        return tasks.make_problem(Workload("mnist", batch_size=32), DATASET)

    def test_is_the_paper_s_mlp_on_images_of_the_data_set_s_size(self, task: tasks.Task):
        model = nnx.eval_shape(lambda: task.model(nnx.Rngs(0)))
        shapes = sorted(leaf.shape for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        assert shapes == [(10,), (16, 256), (256,), (256,), (256, 10), (256, 256)]

    def test_is_larger_for_larger_images(self):
        colour = dataclasses.replace(DATASET, train_images=np.zeros((60, 32, 32, 3), np.uint8))
        task = tasks.make_problem(Workload("fashion_mnist"), colour)
        model = nnx.eval_shape(lambda: task.model(nnx.Rngs(0)))
        shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
        assert (3072, 256) in shapes

    def test_has_the_workload_s_batch_size(self, task: tasks.Task):
        assert task.batch_size == 32

    @pytest.mark.parametrize("train", [False, True])
    def test_brings_bytes_to_minus_one_to_one(self, train: bool, task: tasks.Task):
        key = jax.random.key(0) if train else None
        images = jnp.asarray([[0, 51], [204, 255]], jnp.uint8).reshape(1, 2, 2, 1)
        prepared = task.preprocess(images, key)
        assert prepared.dtype == jnp.float32
        np.testing.assert_allclose(prepared.ravel(), [-1, -0.6, 0.6, 1], rtol=1e-6)


CHARACTERS = np.random.default_rng(0).integers(0, 128, (12, 9), np.uint8)
TEXT = Dataset(
    name="tiny text",
    train_images=CHARACTERS[:, :-1],
    train_labels=CHARACTERS[:, 1:].astype(np.int32),
    test_images=CHARACTERS[:5, :-1],
    test_labels=CHARACTERS[:5, 1:].astype(np.int32),
    source="made up",
    num_classes=128,
)


class TestTextTask:
    @pytest.fixture
    def task(self) -> tasks.Task:
        return tasks.make_problem(Workload("python_source", batch_size=6), TEXT)

    def test_is_a_transformer_of_the_text_s_vocabulary_and_length(self, task: tasks.Task):
        model = nnx.eval_shape(lambda: task.model(nnx.Rngs(0)))
        assert model.tokens.num_embeddings == model.head.out_features == 128
        assert model.positions.num_embeddings == 8

    def test_that_is_small_has_half_the_width(self):
        small, whole = (
            nnx.eval_shape(lambda name=name: tasks.TASKS[name].model(TEXT, nnx.Rngs(0)))
            for name in ("python_source_small", "python_source")
        )
        assert (small.tokens.features, whole.tokens.features) == (32, 64)
        assert len(small.blocks) == len(whole.blocks)

    @pytest.mark.parametrize("train", [False, True])
    def test_takes_characters_as_they_are(self, train: bool, task: tasks.Task):
        key = jax.random.key(0) if train else None
        prepared = task.preprocess(jnp.asarray(CHARACTERS), key)
        assert prepared.dtype == jnp.int32
        np.testing.assert_array_equal(prepared, CHARACTERS)

    @staticmethod
    def small(rngs: nnx.Rngs) -> Transformer:
        return Transformer(128, 8, depth=1, width=16, heads=2, rngs=rngs)

    def test_can_be_trained_and_evaluated(self, task: tasks.Task):
        program = Program(
            dataclasses.replace(task, model=self.small),
            ARMS["full"].make,
            Arrays(TEXT.train_images, TEXT.train_labels),
            Arrays(TEXT.test_images, TEXT.test_labels),
            epochs=1,
            mesh=make_mesh(devices=jax.devices()[:1]),
        )
        cells = (np.array([0]), np.array([0.1]))
        state, trained = program.train_epoch(program.init(*cells), *cells)
        evaluated = program.evaluate(state)
        assert state.step == 2
        assert all(np.isfinite(values).all() for values in {**trained, **evaluated}.values())
        assert 4 < trained["train_loss"][0] < 6, "a character, where log 128 is 4.9"
        assert 0 <= evaluated["test_accuracy"][0] <= 1
