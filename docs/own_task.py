"""A task of one's own: which of two noisy waves has the higher pitch."""

import numpy as np
from flax import nnx

from experiments.dataset import Dataset
from experiments.tasks import Task

LENGTH = 32


def waves(number, seed):
    rng = np.random.default_rng(seed)
    pitch = rng.uniform(1, 6, (number, 2))
    phase = rng.uniform(0, 2 * np.pi, (number, 2, 1))
    time = np.linspace(0, 1, LENGTH)
    signal = np.sin(2 * np.pi * pitch[:, :, None] * time + phase)
    noisy = signal + 0.3 * rng.standard_normal(signal.shape)
    return noisy.astype(np.float32), (pitch[:, 1] > pitch[:, 0]).astype(np.int32)


def data():
    return Dataset("waves", *waves(2000, 0), *waves(500, 1), "made of sines", num_classes=2)


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2 * LENGTH, 32, rngs=rngs)
        self.head = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x, *, train, rngs=None):
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def make():
    return Task(
        title="Two waves",
        data=data,
        model=lambda dataset, rngs: Classifier(rngs),
        preprocess=lambda signals, key: signals,
    )
