"""What a task is judged by: losses and metrics per example, and which way is better."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from experiments.statistics import MARGIN

PerExample = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Of outputs, inputs and labels of a batch: one value per example, or per character of text."""


def cross_entropy(outputs: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Nats per label, of logits with the classes last."""
    del inputs
    return optax.softmax_cross_entropy_with_integer_labels(outputs.astype(jnp.float32), labels)


def correct(outputs: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the highest logit is that of the label."""
    del inputs
    return jnp.argmax(outputs, -1) == labels


def reconstruction_loss(outputs: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Nats per image, of logits of the pixels of inputs in [0, 1]."""
    del labels
    return jnp.sum(optax.sigmoid_binary_cross_entropy(outputs, inputs), -1)


def squared_error(outputs: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Summed over the pixels of an image, of logits of pixels in [0, 1]."""
    del labels
    return jnp.sum(jnp.square(jax.nn.sigmoid(outputs) - inputs), -1)


@dataclasses.dataclass(frozen=True)
class Metric:
    """What decides about the runs of a task.

    Attributes:
      name: its column in the records is ``test_`` and this.
      title: what readers call it.
      per_example: its value for each example; the records keep the mean.
      higher_is_better: whether more is better.
      scale: from the records to what readers see.
      unit: of what readers see.
      difference_unit: of a difference between two.
      margin: the largest difference of no practical size, in that unit.
      worst: what a run counts as whose value is no finite number, in the unit that readers see.
    """

    name: str
    title: str
    per_example: PerExample
    higher_is_better: bool = True
    scale: float = 1.0
    unit: str = ""
    difference_unit: str = ""
    margin: float = MARGIN
    worst: float = 0.0

    @property
    def column(self) -> str:
        """Of the records."""
        return f"test_{self.name}"

    @property
    def sign(self) -> int:
        """What turns a difference into one that is above zero where it is better."""
        return 1 if self.higher_is_better else -1

    @property
    def final(self) -> str:
        """What two arms are compared by; above zero is better for it, whatever the metric is."""
        return (
            f"final {self.title}" if self.higher_is_better else f"reduction of final {self.title}"
        )

    @property
    def difference_axis(self) -> str:
        """The label of an axis of differences."""
        return f"{self.final} ({self.difference_unit})" if self.difference_unit else self.final

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def validation_axis(self) -> str:
        """The same, on held-out training examples."""
        return f"validation {self.axis.removeprefix('test ')}"


ACCURACY = Metric("accuracy", "test accuracy", correct, True, 100.0, "%", "points")
RECONSTRUCTION = Metric(
    "error",
    "squared error per image",
    squared_error,
    higher_is_better=False,
    margin=0.1,
    worst=784.0,  # every pixel of 28 x 28 wrong
)
