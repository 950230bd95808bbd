"""Run by ``test_mesh.py`` as one process of a job: studies whose work all processes share."""

import sys
from pathlib import Path

import jax
from rich.console import Console

from experiments import __main__ as command_line
from experiments.configs import Accuracy

ARGUMENTS = "--seeds 2 --epochs 1 --batch-size 512 --no-diagnostics --distributed"

if __name__ == "__main__":
    arguments = f"accuracy --arms momentum --mesh data=4 --fsdp --out data {ARGUMENTS}"
    sys.argv = ["experiments", *arguments.split()]
    command_line.main()
    console = Console(quiet=jax.process_index() > 0)
    over_seeds = Accuracy(
        arms=("sgd",),
        seeds=2,
        epochs=1,
        batch_size=512,
        mesh=("seed=2", "data=2"),
        out=Path("seed"),
    )
    command_line.run(over_seeds, console)
