"""The multilayer perceptron and the transformer; ResNet-18 is in ``test_cifar10.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.models import MLP, DecoderBlock, Transformer, convolve

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


def tokens(seed: int, batch: int = 2, length: int = 12, vocabulary: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (batch, length), np.int32)


def normalised(x: np.ndarray, norm: nnx.LayerNorm) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    rms = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / rms * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def attended(x: np.ndarray, block: DecoderBlock) -> np.ndarray:
    """What each head gathers from the same and from earlier places, side by side."""
    length, width = x.shape
    size = width // block.heads
    query, key, value = np.split(x @ np.asarray(block.query_key_value.kernel[...]), 3, axis=1)
    gathered = []
    for start in range(0, width, size):
        head = slice(start, start + size)
        scores = query[:, head] @ key[:, head].T / size**0.5
        weights = np.exp(scores) * np.tri(length)
        gathered.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, head])
    return np.concatenate(gathered, axis=1)


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


class TestTransformer:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Transformer:
        return Transformer(11, 12, depth=2, width=16, heads=4, rngs=nnx.Rngs(0))

    @pytest.mark.parametrize(
        ("vocabulary", "length", "depth", "width", "heads"),
        [(128, 128, 4, 128, 4), (11, 7, 3, 24, 3), (32_000, 1024, 12, 768, 12)],
    )
    def test_has_the_parameters_of_the_formula(
        self, vocabulary: int, length: int, depth: int, width: int, heads: int
    ):
        model = nnx.eval_shape(
            lambda: Transformer(vocabulary, length, depth, width, heads, rngs=nnx.Rngs(0))
        )
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        assert sum(leaf.size for leaf in leaves) == (
            (2 * vocabulary + length) * width + depth * (12 * width**2 + 4 * width) + 2 * width
        )
        assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}

    def test_has_0_8_million_parameters_by_default(self):
        leaves = jax.tree.leaves(nnx.state(Transformer(rngs=nnx.Rngs(0)), nnx.Param))
        assert sum(leaf.size for leaf in leaves) == 123_520

    def test_gives_logits_of_each_next_token(self, model: Transformer):
        logits = model(tokens(0), train=False)
        assert logits.shape == (2, 12, 11)
        assert logits.dtype == jnp.float32

    def test_takes_shorter_sequences_too(self, model: Transformer):
        logits = jax.eval_shape(lambda: model(jnp.asarray(tokens(0, length=5)), train=False))
        assert logits.shape == (2, 5, 11)

    def test_follows_the_equations(self, model: Transformer):
        """Of one sequence, in float64."""
        sequence = tokens(0)[0]
        positions = np.asarray(model.positions.embedding[...])
        x = np.asarray(model.tokens.embedding[...], np.float64)[sequence] + positions
        for block in model.blocks:
            gathered = attended(normalised(x, block.attention_norm), block)
            x = x + gathered @ np.asarray(block.attention_out.kernel[...])
            hidden = gelu(normalised(x, block.mlp_norm) @ np.asarray(block.mlp_in.kernel[...]))
            x = x + hidden @ np.asarray(block.mlp_out.kernel[...])
        expected = normalised(x, model.norm) @ np.asarray(model.head.kernel[...])
        logits = model(sequence[np.newaxis], train=False)[0]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("changed", [1, 6, 11])
    def test_no_logit_depends_on_a_later_token(self, changed: int, model: Transformer):
        before = tokens(0)
        after = before.copy()
        after[:, changed] = (after[:, changed] + 1) % 11
        one, other = (np.asarray(model(x, train=False)) for x in (before, after))
        np.testing.assert_array_equal(one[:, :changed], other[:, :changed])
        assert (one[:, changed:] != other[:, changed:]).any(axis=(0, 2)).all(), "on earlier ones"

    def test_tells_positions_apart(self, model: Transformer):
        """The same token everywhere: attention alone would see no difference."""
        logits = np.asarray(model(np.zeros((1, 12), np.int32), train=False))[0]
        assert not np.isclose(logits[1:], logits[:-1], atol=1e-5).all(axis=1).any()

    def test_sequences_of_a_batch_do_not_meet(self, model: Transformer):
        both = model(tokens(0), train=False)
        np.testing.assert_allclose(model(tokens(0)[1:], train=False), both[1:], atol=1e-5)

    def test_is_the_same_in_training_and_needs_no_random_numbers(self, model: Transformer):
        np.testing.assert_array_equal(
            model(tokens(0), train=True), model(tokens(0), train=False), strict=True
        )

    def test_learns_a_tiny_text(self):
        """A sequence in which each token decides the next."""
        text = np.tile(np.arange(13, dtype=np.int32) % 11, (4, 1))
        inputs, labels = text[:, :-1], text[:, 1:]
        graph, params = nnx.split(Transformer(11, 12, 2, 16, 4, rngs=nnx.Rngs(0)))
        optimizer = optax.adam(1e-2)

        def loss_fn(params: nnx.State) -> jax.Array:
            logits = nnx.merge(graph, params)(inputs, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        @jax.jit
        def step(params: nnx.State, state: optax.OptState) -> tuple:
            loss, gradients = jax.value_and_grad(loss_fn)(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        state, losses = optimizer.init(params), []
        for _ in range(30):
            params, state, loss = step(params, state)
            losses.append(float(loss))
        assert losses[0] > 2, "log 11 is 2.4"
        assert losses[-1] < 0.1

    def test_refuses_a_width_that_its_heads_do_not_divide(self):
        with pytest.raises(ValueError, match="width must be a multiple of heads, got 16 and 3"):
            Transformer(width=16, heads=3, rngs=nnx.Rngs(0))

    def test_refuses_sequences_longer_than_its_positions(self, model: Transformer):
        with pytest.raises(ValueError, match="tokens must be sequences of at most 12, got 13"):
            model(tokens(0, length=13), train=False)
