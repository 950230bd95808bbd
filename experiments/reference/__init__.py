"""Trajectories of the published implementation, run by the paper's protocol, to compare with.

Each file holds six runs, three seeds of the full method and of the gradient-only ablation, with
what was measured in each epoch. Norms are over a whole epoch: the root of the summed squares of all
its steps and leaves. What the authors report themselves is in a file beside them.
"""

import json
from importlib import resources
from typing import Any

import pandas as pd

DATASETS = ("mnist", "fashion_mnist")


def load(dataset: str) -> pd.DataFrame:
    """The published implementation's trajectories: one row per run and epoch.

    Args:
      dataset: ``"mnist"`` or ``"fashion_mnist"``.

    Returns:
      Columns arm, seed, epoch (from 1), test_accuracy (share), test_loss, alpha_mean, alpha_std,
      alpha_min, alpha_max, raw_gradient_norm, raw_update_norm and effective_update_norm.

    Raises:
      ValueError: a data set it was not run on.

    Examples:
      >>> load("fashion_mnist").groupby("arm")["seed"].nunique().to_dict()
      {'full': 3, 'gradient_only': 3}
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}.")
    text = resources.files(__name__).joinpath(f"{dataset}_reference.json").read_text("utf-8")
    runs = [pd.DataFrame(run) for run in json.loads(text)["runs"]]
    return pd.concat([run.assign(epoch=range(1, len(run) + 1)) for run in runs], ignore_index=True)


def reported(dataset: str) -> dict[str, Any] | None:
    """What the authors report of the full method and its ablation; None where nothing.

    ``full_final_percent`` and ``gap_points``, the difference to the ablation, are of final test
    accuracy and ``gap_loss`` of test loss, over ``seeds``; ``source`` is in their ``repository``.
    """
    text = resources.files(__name__).joinpath("reported.json").read_text("utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found.get(dataset)
