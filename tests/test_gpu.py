"""The benchmark of a lent device: parts that are stopped and go on, and goals read from records."""

import io
import json
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from benchmarks import gpu
from experiments.cells import ConfigError


def run(folder: Path, **settings: object) -> str:
    said = io.StringIO()
    gpu.run(gpu.Config("smoke", out=folder, **settings), Console(file=said, width=200))
    return said.getvalue()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are run, of which the second is stopped the first time."""
    names: list[str] = []

    def run_part(command: list[str], seconds: float) -> bool | None:
        assert command[1] == "-m"
        assert 0 < seconds <= 540
        names.append(Path(command[-1]).name)
        return None if names == ["step", "train"] else True

    monkeypatch.setattr(gpu, "run_part", run_part)
    return names


def test_what_is_done_is_not_done_again(done: list[str], tmp_path: Path):
    assert "not done: train; call it again" in run(tmp_path)
    assert done == list(gpu.PARTS)
    assert json.loads((tmp_path / "done.json").read_text())["train"] == "stopped"
    assert "nothing is left" in run(tmp_path)
    assert done == [*gpu.PARTS, "train"]


def test_no_part_is_begun_when_the_time_is_over(
    done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu.time, "monotonic", iter(range(0, 9000, 300)).__next__)
    assert "not done: train" in run(tmp_path)
    assert done == ["step"]


def test_the_settings_of_figure_5_are_in_a_clone():
    assert (Path(__file__).parents[1] / gpu.SELECTED / "selections.csv").is_file()


def test_only_the_parts_that_are_named_are_run(done: list[str], tmp_path: Path):
    run(tmp_path, parts=("figure5",))
    assert done == ["figure5"]


def test_a_part_that_takes_too_long_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "LEAVE", 10)
    start = time.monotonic()
    assert gpu.run_part([sys.executable, "-c", "import time; time.sleep(60)"], 1) is None
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(("code", "succeeded"), [(0, True), (3, False)])
def test_a_part_that_ends_says_whether_it_succeeded(code: int, succeeded: bool):
    assert gpu.run_part([sys.executable, "-c", f"raise SystemExit({code})"], 60) is succeeded


def test_goals_are_read_from_the_records(tmp_path: Path):
    (tmp_path / "step").mkdir()
    (tmp_path / "train").mkdir()
    pd.DataFrame(
        {
            "tree": ["leaf", "leaf", "mlp"],
            "optimizer": ["adam", "full", "full"],
            "donated": [True, True, True],
            "bandwidth_share": [0.1, 0.9, 0.2],
        }
    ).to_csv(tmp_path / "step/step.csv")
    pd.DataFrame(
        {
            "model": ["MLP"] * 3 + ["ResNet-18, bfloat16", "ResNet-18, float32"],
            "seeds": [1, 64, 64, 1, 1],
            "images_per_second": [10.0, 40.0, 64.0, 30_000.0, 50_000.0],
        }
    ).to_csv(tmp_path / "train/throughput.csv")
    assert gpu.goal_table(tmp_path)[1:] == [
        ["share of the copy's speed, one leaf", "90%", "≥ 85%", "yes"],
        ["ResNet-18 in bfloat16, images per second", "30,000", "≥ 40,000", "no"],
        ["added to SGD momentum, ResNet-18", "not measured", "≤ 5.0%", ""],
        ["64 seeds of the MLP, in times of one", "10.0", "≤ 8.0", "no"],
    ]


@pytest.mark.parametrize("settings", [{"parts": ("x",)}, {"minutes": 0}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        gpu.Config(**settings)
