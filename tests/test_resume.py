"""Nothing is lost: a study that was killed goes on, and ends with the numbers of one that was not.

The studies here are run as processes, by the command line. They train the paper's MLP on a few
made-up images. Most are *watched* (see ``study_process``); some are the command as users start it.
"""

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.arms import ARMS
from tests.study_process import StudyProcess, limit_files, watch, write_images

REPOSITORY = Path(__file__).parent.parent
STUDY_ARMS = ("sgd", "momentum", "adam")
EPOCHS, IMAGES, BATCH, SEEDS = 10, 400, 100, 2
COMMAND = (
    "accuracy --dataset mnist --raw-dir ../raw --data-dir ../data --out out --no-diagnostics "
    f"--seeds {SEEDS} --epochs {EPOCHS} --batch-size {BATCH} --arms"
)
KILLS = 10
SECONDS = ["seconds", "evaluation_seconds"]


class StudyFolder:
    """A folder in which the command is run, again and again."""

    def __init__(self, folder: Path, arms: tuple[str, ...] = STUDY_ARMS) -> None:
        folder.mkdir()
        self.folder, self.out, self._arms = folder, folder / "out", arms
        # Nothing is compiled twice by the studies of this file, and that once with no effort.
        self._settings = {
            "jax_compilation_cache_dir": str(folder.parent / "compiled"),
            "jax_disable_most_optimizations": 1,
            "jax_persistent_cache_min_compile_time_secs": 0,
        }

    def start(self, *prepare: Callable[[], None]) -> StudyProcess:
        """The command in a process of its own, watched."""
        arguments = " ".join([COMMAND, *self._arms])
        return StudyProcess(
            self.folder, arguments, settings=self._settings, prepare=(watch, *prepare)
        )

    def run(self, *prepare: Callable[[], None]) -> tuple[int, str, str]:
        """The command, watched, to its end: exit code, output and complaints."""
        return self.start(*prepare).communicate()

    def run_as_users_do(self, seconds: float) -> tuple[int, str]:
        """The command as it is, until it ends or the time is up: exit code and complaints."""
        command = [sys.executable, "-m", "experiments", *COMMAND.split(), *self._arms]
        settings = {name.upper(): str(value) for name, value in self._settings.items()}
        settings |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended = subprocess.run(
                command,
                cwd=self.folder,
                env=os.environ | settings,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:  # it was killed
            return -9, ""
        return ended.returncode, ended.stderr

    def killed_while(self, phase: str, rng: random.Random) -> bool:
        """Kills the study at a random moment of some phase; False where it had ended before."""
        if phase == "starting":
            code, complaints = self.run_as_users_do(seconds=rng.uniform(0, 3))
        else:
            progress = self.trained if phase == "training" else self.runs
            goal = len(progress()) + (rng.randint(1, 4) if phase == "training" else 1)
            process = self.start()
            while process.poll() is None and len(progress()) < goal:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            code, _, complaints = process.communicate()
        assert code in (0, -9), complaints
        return code != 0

    def trained(self) -> list[tuple[str, int]]:
        """Arm and number of each epoch that a watched process began."""
        log = self.folder / "epochs.log"
        arms = {ARMS[arm].learning_rate: arm for arm in STUDY_ARMS}
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [(arms[float(rate)], int(step) * BATCH // IMAGES + 1) for rate, step in lines]

    def runs(self) -> pd.DataFrame:
        path = self.out / "runs.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame({"arm": []})

    def next_epoch(self) -> tuple[str, int] | None:
        """Arm and number of the epoch to go on with, by records, store and the last checkpoint."""
        stored = {
            arm: len(list(self.folder.glob(f"store/mnist-{arm}-*.json"))) for arm in self._arms
        }
        recorded = set(self.runs()["arm"])
        pending = [arm for arm in self._arms if arm not in recorded and stored[arm] < SEEDS]
        if not pending:
            return None
        if stored[pending[0]]:  # some seeds were stored: the others are another program's
            return pending[0], 1
        saved = [
            json.loads((step / "rows/metadata").read_text())["rows"][-1]
            for step in self.out.glob("checkpoints/*/*")
            if step.name.isdigit()
            and (step / "rows/metadata").exists()  # else it was being removed
        ]
        epochs = [row["epoch"] for row in saved if row["arm"] == pending[0]]
        return pending[0], max(epochs, default=0) + 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the studies of this file are; they share the images and what was compiled."""
    place = tmp_path_factory.mktemp("resume")
    write_images(place / "raw", train=IMAGES, test=100)
    return place


@pytest.fixture(scope="module")
def whole(place: Path) -> StudyFolder:
    """A study that was not interrupted."""
    study = StudyFolder(place / "whole")
    code, _, complaints = study.run()
    assert code == 0, complaints
    return study


def assert_same_but_for_seconds(study: StudyFolder, whole: StudyFolder) -> None:
    runs, expected = study.runs(), whole.runs()
    expected = expected[expected["arm"].isin(set(runs["arm"]))]
    pd.testing.assert_frame_equal(
        runs.drop(columns=SECONDS), expected.drop(columns=SECONDS), check_exact=True
    )
    assert (runs[SECONDS] > 0).all(axis=None)
    left = {path.name for path in study.out.iterdir()}
    assert left == {path.name for path in whole.out.iterdir()}
    assert {"runs.csv", "manifest.json", "summary.csv", "report.md", "figure.png"} < left


def test_a_study_killed_at_ten_moments_leaves_the_same_records(place: Path, whole: StudyFolder):
    """While it starts, by the command as it is; while it trains; while it writes things down.

    As many studies as the kills take, each brought to its end.
    """
    rng = random.Random(0)
    phases = ["starting", *["training"] * 3, "writing"]
    kills = resumed = 0
    for number in itertools.count():
        study = StudyFolder(place / f"killed-{number}")
        begun, finished = time.monotonic(), False
        while not finished:
            expected, before = study.next_epoch(), len(study.trained())
            if kills < KILLS:
                finished = not study.killed_while(rng.choice(phases), rng)
                kills += not finished
            else:
                code, _, complaints = study.run()
                assert code == 0, complaints
                finished = True
            trained = study.trained()[before:]
            if trained:
                assert trained[0] == expected, "it goes on where it stood"
                assert len(set(trained)) == len(trained)
                resumed += expected[1] > 1
        assert_same_but_for_seconds(study, whole)
        assert study.runs()[SECONDS].to_numpy().sum() < time.monotonic() - begun
        if kills == KILLS:
            break
    assert resumed >= KILLS // 4


def test_a_second_process_in_the_folder_says_so_and_stops(place: Path):
    study = StudyFolder(place / "twice")
    first = study.start()
    try:
        while not study.trained():
            assert first.poll() is None
            time.sleep(0.01)
        code, _, complaints = study.run()
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert code == 2
    assert complaints == "error: out is in use by another process; wait for it.\n"


def test_a_full_disk_is_an_error_and_the_study_goes_on_when_there_is_room(
    place: Path, whole: StudyFolder
):
    study = StudyFolder(place / "full", arms=("sgd",))
    code, _, complaints = study.run(limit_files)
    assert code == 2
    assert re.search(r"error: out/checkpoints/\w+ cannot be written: .*File too large", complaints)
    trained = study.trained()
    assert len(trained) < EPOCHS
    assert study.next_epoch() == ("sgd", 1), "what was half written is no checkpoint"
    code, _, complaints = study.run()
    assert code == 0, complaints
    assert len(study.trained()) == len(trained) + EPOCHS
    assert_same_but_for_seconds(study, whole)
