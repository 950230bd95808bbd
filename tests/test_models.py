"""The multilayer perceptron: its size, its initial parameters, its dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models import MLP, convolve

IMAGES = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def mlp() -> MLP:
    return MLP(rngs=nnx.Rngs(0))


def linear_layers(mlp: MLP) -> list[nnx.Linear]:
    return [*mlp.hidden, mlp.head]


class TestParameters:
    def test_are_as_many_as_those_of_784_256_256_10(self, mlp: MLP):
        layers = linear_layers(mlp)
        assert [layer.kernel.shape for layer in layers] == [(784, 256), (256, 256), (256, 10)]
        assert [layer.bias.shape for layer in layers] == [(256,), (256,), (10,)]
        assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(mlp, nnx.Param))) == 269_322

    def test_are_float32(self, mlp: MLP):
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(nnx.state(mlp, nnx.Param))}
        assert dtypes == {np.dtype(np.float32)}

    @pytest.mark.parametrize("layer", [0, 1, 2])
    def test_are_uniform_within_one_over_the_root_of_fan_in(self, layer: int, mlp: MLP):
        """Weights and biases alike; none outside, and the range is filled."""
        linear = linear_layers(mlp)[layer]
        bound = linear.kernel.shape[0] ** -0.5
        for values in (np.asarray(linear.kernel[...]), np.asarray(linear.bias[...])):
            assert np.abs(values).max() <= bound
            room = 8 * bound / values.size  # the chance that the end is left empty is exp(−4)
            assert values.min() < -bound + room
            assert values.max() > bound - room
            sd = bound / 3**0.5
            assert abs(values.mean()) < 4 * sd / values.size**0.5
            assert values.std() == pytest.approx(sd, rel=max(0.01, 1.5 * values.size**-0.5))

    def test_depend_on_the_seed_alone(self):
        one, same, other = (
            jax.tree.leaves(nnx.state(MLP(4, (3,), rngs=nnx.Rngs(seed)), nnx.Param))
            for seed in (1, 1, 2)
        )
        for a, b, c in zip(one, same, other, strict=True):
            np.testing.assert_array_equal(a, b)
            assert not np.array_equal(a, c)


class TestLogits:
    def test_are_one_a_class(self, mlp: MLP):
        logits = mlp(IMAGES, train=False)
        assert logits.shape == (3, 10)
        assert logits.dtype == jnp.float32

    def test_are_those_of_linear_layers_with_relu_between(self, mlp: MLP):
        x = IMAGES.reshape(3, -1).astype(np.float64)
        for layer in mlp.hidden:
            x = np.maximum(x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]), 0)
        expected = x @ np.asarray(mlp.head.kernel[...]) + np.asarray(mlp.head.bias[...])
        np.testing.assert_allclose(mlp(IMAGES, train=False), expected, rtol=1e-4, atol=1e-5)

    def test_take_any_size_of_image_and_any_number_of_classes(self):
        colour = MLP(32 * 32 * 3, (5,), num_classes=7, rngs=nnx.Rngs(0))
        assert colour(jnp.zeros((2, 32, 32, 3)), train=False).shape == (2, 7)


class TestDropout:
    """With one hidden layer whose units are all 1, and no head."""

    UNITS, RATE = 10_000, 0.25

    @pytest.fixture(scope="class")
    @classmethod
    def mlp(cls) -> MLP:
        mlp = MLP(1, (cls.UNITS,), 1, dropout=cls.RATE, rngs=nnx.Rngs(0))
        mlp.hidden[0].kernel[...] = jnp.zeros((1, cls.UNITS))
        mlp.hidden[0].bias[...] = jnp.ones(cls.UNITS)
        mlp.head = lambda hidden: hidden
        return mlp

    def hidden(self, mlp: MLP, *, train: bool, seed: int = 0) -> np.ndarray:
        rngs = nnx.Rngs(seed) if train else None
        return np.asarray(mlp(jnp.zeros((2, 1)), train=train, rngs=rngs))

    def test_is_in_training_alone(self, mlp: MLP):
        np.testing.assert_array_equal(self.hidden(mlp, train=False), np.ones((2, self.UNITS)))

    def test_drops_its_share_and_scales_the_rest_so_that_the_mean_stays(self, mlp: MLP):
        hidden = self.hidden(mlp, train=True)
        kept = hidden != 0
        np.testing.assert_allclose(hidden[kept], 1 / (1 - self.RATE), rtol=1e-6)
        assert kept.mean() == pytest.approx(1 - self.RATE, abs=0.02)

    def test_draws_for_every_image_and_every_key(self, mlp: MLP):
        one, same, other = (self.hidden(mlp, train=True, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)
        assert not np.array_equal(one[0], one[1])

    def test_is_at_the_paper_s_rate_after_both_hidden_layers(self):
        mlp = MLP(4, rngs=nnx.Rngs(0))
        assert mlp.dropout.rate == 0.1
        dropped = []

        def spy(x: jax.Array, **_: object) -> jax.Array:
            dropped.append(x)
            return x

        mlp.dropout = spy
        mlp(jnp.ones((2, 4)), train=True)
        assert [x.shape for x in dropped] == [(2, 256), (2, 256)]
        assert all((x >= 0).all() for x in dropped), "after the ReLU"


class TestConvolve:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", [1, 3, 5])
    @pytest.mark.parametrize("side", [7, 8])
    def test_equals_xla_s_convolution_and_its_gradients(self, stride: int, size: int, side: int):
        keys = jax.random.split(jax.random.key(0), 3)
        images = jax.random.normal(keys[0], (2, side, side, 3))
        kernel = jax.random.normal(keys[1], (size, size, 3, 4))
        window = {"window_strides": (stride, stride), "padding": [(size // 2, size // 2)] * 2}
        layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        expected, pull_expected = jax.vjp(
            lambda *x: jax.lax.conv_general_dilated(*x, **window, **layout), images, kernel
        )
        found, pull_found = jax.vjp(lambda *x: convolve(*x, **window), images, kernel)
        cotangent = jax.random.normal(keys[2], expected.shape)
        for one, other in zip(
            (found, *pull_found(cotangent)), (expected, *pull_expected(cotangent)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
