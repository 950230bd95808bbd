"""The worked example of a task of one's own, trained by two studies, unchanged elsewhere."""

import io
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from rich.console import Console

from experiments import __main__ as command_line
from experiments import tasks
from experiments.cells import ConfigError, Workload
from experiments.studies.accuracy import Accuracy
from experiments.studies.base import Study
from experiments.studies.tune import Tune

OWN = f"{Path(__file__).parent.parent / 'docs' / 'own_task.py'}:make"
SIZES = {"task": OWN, "arms": ("sgd",), "seeds": 1, "epochs": 1}


def shown(study: Study) -> str:
    console = io.StringIO()
    command_line.run(study, Console(file=console, width=300))
    return console.getvalue()


class TestTwoStudies:
    def test_train_it_and_share_their_store(self, tmp_path: Path):
        accuracy = Accuracy(out=tmp_path / "accuracy", diagnostics=False, **SIZES)
        tune = Tune(out=tmp_path / "tune", **SIZES)
        assert "SGD" in shown(accuracy)
        assert "SGD" in shown(tune)
        runs = pd.concat(pd.read_csv(tmp_path / name / "runs.csv") for name in ("accuracy", "tune"))
        assert set(runs["task"]) == {OWN}
        assert runs["test_accuracy"].between(0.3, 1).all()
        assert "# Accuracy by epoch: Two waves" in (tmp_path / "accuracy/report.md").read_text()


class TestAutoencoder:
    def test_learns_to_give_what_it_reads(self):
        """Its gradients are not those of a classification."""
        task = tasks.find_task("mnist5k_autoencoder")
        dataset = tasks.load(Workload("mnist5k_autoencoder"), data_dir=Path("data"), raw_dir=None)
        problem = tasks.make_problem(Workload("mnist5k_autoencoder"), dataset)
        model = problem.model(nnx.Rngs(0))
        inputs = problem.preprocess(dataset.train_images[:8], None)
        outputs = model(inputs, train=False)
        assert inputs.shape == outputs.shape == (8, 784)
        error = task.metric.per_example(outputs, inputs, dataset.train_labels[:8])
        expected = np.square(jax.nn.sigmoid(outputs) - inputs).sum(1)
        np.testing.assert_allclose(error, expected, rtol=1e-5)
        assert not task.metric.higher_is_better


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("def make(): return 3", "must be an experiments.tasks.Task, got int"),
            ("def make(): raise OSError('no disk')", r"fails \(OSError: no disk\)"),
            ("make = 3", "cannot be called"),
        ],
    )
    def test_of_what_is_no_task_name_it(self, body: str, said: str, tmp_path: Path):
        (tmp_path / "own.py").write_text(body)
        with pytest.raises(ConfigError, match=said):
            tasks.find_task(f"{tmp_path}/own.py:make")
