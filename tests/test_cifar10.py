"""CIFAR-10's model and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.arms import ARMS
from experiments.cells import Workload
from experiments.dataset import Dataset
from experiments.mesh import make_mesh
from experiments.models import ResidualBlock, ResNet
from experiments.preprocessing import CIFAR10_MEAN, CIFAR10_STD, random_crop, random_flip
from experiments.tasks import TASKS, make_problem
from experiments.train import Arrays, Problem, Program

IMAGES = np.random.default_rng(0).integers(1, 256, (24, 8, 8, 3), np.uint8)
LABELS = np.arange(24, dtype=np.int32) % 10


def dataset():
    return Dataset("cifar10", IMAGES, LABELS, IMAGES[:10], LABELS[:10], "made here")


def test_resnet18_has_the_published_number_of_parameters():
    model = nnx.eval_shape(lambda: ResNet(rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 11_173_962


def test_cifar10_is_trained_with_resnet18():
    model = nnx.eval_shape(lambda: TASKS["cifar10"].model(dataset(), nnx.Rngs(0)))
    assert isinstance(model, ResNet)


def test_the_small_task_has_a_narrow_resnet_whose_stem_has_stride_4():
    model = nnx.eval_shape(lambda: TASKS["cifar10_small"].model(dataset(), nnx.Rngs(0)))
    assert isinstance(model, ResNet)
    assert model.stem.kernel.shape == (3, 3, 3, 8)
    assert model.stem.strides == 4


def test_evaluation_normalises_each_channel_and_changes_nothing_else():
    preprocess = make_problem(Workload("cifar10"), dataset()).preprocess
    expected = (IMAGES / 255 - np.array(CIFAR10_MEAN)) / np.array(CIFAR10_STD)
    np.testing.assert_allclose(preprocess(jnp.asarray(IMAGES), None), expected, 1e-5, 1e-6)


def test_a_crop_is_a_shift_by_at_most_the_padding_with_zeros_behind_it():
    cropped = np.asarray(random_crop(jnp.asarray(IMAGES), jax.random.key(0), padding=2))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    shifts = set()
    for image, source in zip(cropped, padded, strict=True):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(image, source[i : i + 8, j : j + 8])
        ]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 8


def test_a_flip_mirrors_about_half_of_the_images():
    images = jnp.asarray(np.repeat(IMAGES, 20, axis=0))
    flipped = np.asarray(random_flip(images, jax.random.key(0)))
    kept = (flipped == images).all((1, 2, 3))
    assert ((flipped == images[:, :, ::-1]).all((1, 2, 3)) | kept).all()
    assert kept.mean() == pytest.approx(0.5, abs=0.1)


class OneBlock(nnx.Module):
    """A block of the model, which as a whole takes long to compile."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.block = ResidualBlock(3, 10, 2, dtype=jnp.float32, rngs=rngs)

    def __call__(self, images: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None):
        del rngs
        return jnp.mean(self.block(images, train=train), axis=(1, 2))


def test_training_updates_batch_statistics_and_evaluation_uses_them():
    task = make_problem(Workload("cifar10", batch_size=16), dataset())
    small = Problem(OneBlock, task.preprocess, task.batch_size)
    data = Arrays(IMAGES, LABELS)
    mesh = make_mesh(devices=jax.devices()[:1])
    program = Program(small, ARMS["sgd"].make, data, data, epochs=1, mesh=mesh, loop="map")
    seeds, learning_rates = np.array([0]), np.array([0.1])
    state = program.init(seeds, learning_rates)
    before = jax.device_get(state.variables)
    state, metrics = program.train_epoch(state, seeds, learning_rates)
    after = jax.device_get(state.variables)
    moved = jax.tree.map(lambda a, b: not np.allclose(a, b), before, after)
    assert all(jax.tree.leaves(moved))
    assert np.isfinite(metrics["train_loss"]).all()
    assert program.evaluate(state)["test_loss"].shape == (1,)
