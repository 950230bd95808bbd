"""Trains the paper's MLP with PyTorch, epoch by epoch; needs torch and NumPy, nothing else.

``benchmarks.whole_runs`` starts it with an interpreter that has them:
``python torch_worker.py DATA THREADS [SOURCE]``. DATA is an ``.npz`` file with the four arrays of a
data set, and SOURCE the folder to import the published implementation from; without it torch's Adam
is trained. Each line of standard input is an order, in JSON, and each is answered by a line.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SPLITS = ("train", "test")
BATCH_SIZE, HIDDEN, CLASSES, DROPOUT = 128, 256, 10, 0.1
LEARNING_RATE, SCALE, WARMUP_EPOCHS = 0.1, 2.0, 2  # of the full method, as published
ADAM_LEARNING_RATE = 1e-3


class OneByOne:
    """Examples for a ``DataLoader``: an image is turned into the model's input when asked for."""

    def __init__(self, images: Any, labels: Any) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return normalised(self._images[index]), self._labels[index]


class Batches:
    """Batches of images that were turned into the model's input before."""

    def __init__(self, images: Any, labels: Any, shuffle: bool) -> None:
        self._images, self._labels, self._shuffle = normalised(images), labels, shuffle

    def __iter__(self) -> Any:
        import torch

        size = len(self._labels)
        order = torch.randperm(size) if self._shuffle else torch.arange(size)
        for chosen in order.split(BATCH_SIZE):
            yield self._images[chosen], self._labels[chosen]


def normalised(images: Any) -> Any:
    """Bytes to [−1, 1], the published normalisation."""
    return images.float().div(255).sub(0.5).div(0.5)


class Training:
    """Trainings on the same data, each with a new model.

    Args:
      arrays: the four arrays of a data set, as tensors.
      published: whether the published implementation trains, and not torch's Adam.
    """

    def __init__(self, arrays: Mapping[str, Any], published: bool) -> None:
        from torch.utils.data import DataLoader

        self._published = published
        self._batches: dict[tuple[str, str], Iterable[Any]] = {}
        for name in SPLITS:
            split, shuffle = (arrays[f"{name}_images"], arrays[f"{name}_labels"]), name == "train"
            loader = DataLoader(OneByOne(*split), batch_size=BATCH_SIZE, shuffle=shuffle)
            self._batches["one by one", name] = loader
            self._batches["before", name] = Batches(*split, shuffle=shuffle)
        self._features = arrays["train_images"][0].numel()
        self.make()  # an implementation with other settings ends it here

    def __call__(self, images: str, seed: int, epochs: int) -> dict[str, float]:
        """Trains a seed for some epochs, with the test after each: seconds and last metrics."""
        import torch

        torch.manual_seed(seed)
        start = time.perf_counter()
        model, optimizer = self.make()
        train, test = (self._batches[images, name] for name in SPLITS)
        metrics: dict[str, float] = {}
        for epoch in range(1, epochs + 1):
            if self._published:
                optimizer.set_epoch(epoch)
                optimizer.reset_diagnostics()
            train_loss, _ = self._pass(model, train, optimizer)
            test_loss, accuracy = self._pass(model, test, None)
            metrics = {"train_loss": train_loss, "test_loss": test_loss, "test_accuracy": accuracy}
        return {"seconds": time.perf_counter() - start, **metrics}

    def make(self) -> tuple[Any, Any]:
        """A new model and its optimizer."""
        from torch import nn, optim

        model = nn.Sequential(
            *(nn.Flatten(), nn.Linear(self._features, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)),
            nn.Linear(HIDDEN, CLASSES),
        )
        if not self._published:
            return model, optim.Adam(model.parameters(), lr=ADAM_LEARNING_RATE)
        from neuroplastic_optimizer import NeuroPlasticOptimizer, PlasticityConfig

        settings = PlasticityConfig(plasticity_scale=SCALE, warmup_epochs=WARMUP_EPOCHS)
        parameters = model.parameters()
        return model, NeuroPlasticOptimizer(
            parameters, lr=LEARNING_RATE, plasticity_config=settings
        )

    def _pass(self, model: Any, batches: Iterable[Any], optimizer: Any) -> tuple[float, float]:
        """Loss and accuracy of an epoch; without an optimizer nothing is trained."""
        import torch
        from torch import nn

        model.train(optimizer is not None)
        loss_of_all, correct, count = 0.0, 0, 0
        with torch.set_grad_enabled(optimizer is not None):
            for inputs, labels in batches:
                outputs = model(inputs)
                loss = nn.functional.cross_entropy(outputs, labels)
                if optimizer is not None:
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                loss_of_all += loss.item() * len(labels)
                correct += (outputs.argmax(dim=1) == labels).sum().item()
                count += len(labels)
        return loss_of_all / count, correct / count


def main() -> None:
    """Says what it runs with, then answers orders until there are no more."""
    data, threads, *source = sys.argv[1:]
    sys.path[:0] = source
    import torch

    torch.set_num_threads(int(threads))
    with np.load(data) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    arrays |= {f"{name}_labels": arrays[f"{name}_labels"].long() for name in SPLITS}
    training = Training(arrays, published=bool(source))
    versions = {"torch": torch.__version__, "python of torch": sys.version.split()[0]}
    print(json.dumps({"versions": versions, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(training(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
