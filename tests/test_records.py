"""Records: whole or not at all, one writer, one configuration, no wrong number."""

import errno
import io
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import records as records_module
from experiments.cells import Cell, Workload
from experiments.records import CELL_COLUMNS, RecordError, Records, write_atomically

CONFIGURATION = {"epochs": 2, "batch_size": 128, "fractions": (0.1, 1.0), "rate": None}
WORKLOAD = Workload("mnist", epochs=2)
CELLS = [Cell(WORKLOAD, arm, 0.1, seed) for arm in ("sgd", "adam") for seed in (0, 1)]


def rows_of(*cells: Cell) -> pd.DataFrame:
    """What training a cell would leave: numbers with more digits than are kept."""
    rng = np.random.default_rng(len(cells))
    return pd.DataFrame(
        [
            {
                **cell.fields(),
                "epoch": epoch,
                "train_loss": float(rng.random()),
                "test_accuracy": float(rng.random()),
            }
            for cell in cells
            for epoch in range(1, cell.workload.epochs + 1)
        ]
    )


def open_records(folder: Path, study: str = "accuracy", **changes: object) -> Records:
    return Records(folder, study, CONFIGURATION | changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the records of the first two cells."""
    with open_records(tmp_path / "study") as records:
        records.note_data("mnist", {"source": "IDX files", "checksum": "abc"})
        records.add(rows_of(*CELLS[:2]))
    return tmp_path / "study"


class TestWriteAtomically:
    @pytest.mark.parametrize("content", ["π = 3\n", b"\x89PNG\r\n\x1a\n\x00"])
    def test_replaces_the_file_and_leaves_nothing_else(self, content: str | bytes, tmp_path: Path):
        path = tmp_path / "file"
        path.write_text("old")
        write_atomically(path, content)
        data = content.encode() if isinstance(content, str) else content
        assert path.read_bytes() == data
        assert names(tmp_path) == ["file"]

    def test_the_file_has_the_mode_of_any_new_file(self, tmp_path: Path):
        (tmp_path / "any").touch()
        write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").stat().st_mode == (tmp_path / "any").stat().st_mode

    def test_what_a_killed_process_left_is_taken_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        with monkeypatch.context() as killed:
            killed.setattr(os, "replace", lambda *_: None)
            killed.setattr(Path, "unlink", lambda *_, **__: None)
            write_atomically(tmp_path / "file", "half")
        assert "file" not in names(tmp_path)
        assert len(names(tmp_path)) == 1
        write_atomically(tmp_path / "file", "new")
        assert names(tmp_path) == ["file"]

    @pytest.mark.parametrize("step", ["open", "fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
    def test_a_failing_step_leaves_the_old_file_alone(
        self, step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        path = tmp_path / "file"
        path.write_text("old")
        with monkeypatch.context() as failing:
            failing.setattr(Path if step == "open" else os, step, fail)
            with pytest.raises(RecordError, match=f"{path} cannot be written: {os.strerror(code)}"):
                write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_a_disk_that_is_full_half_way_leaves_the_old_file_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        class Disk(io.FileIO):
            def write(self, data: bytes) -> int:
                super().write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        path = tmp_path / "file"
        path.write_text("old")
        with monkeypatch.context() as full:
            full.setattr(Path, "open", lambda path, _: Disk(path, "w"))
            with pytest.raises(RecordError, match="No space left on device"):
                write_atomically(path, "new and longer")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_an_interruption_leaves_the_old_file_alone(
        self, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        path = tmp_path / "file"
        path.write_text("old")
        monkeypatch.setattr(os, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, "new")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_what_is_replaced_was_written_to_the_disk_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        order = []
        for step in ("fsync", "replace"):
            real = getattr(os, step)
            monkeypatch.setattr(
                os, step, lambda *a, step=step, real=real: (order.append(step), real(*a))
            )
        write_atomically(tmp_path / "file", "new")
        assert order == ["fsync", "replace"]


class TestFolder:
    def test_is_made_where_it_is_missing(self, tmp_path: Path):
        with open_records(tmp_path / "a/b") as records:
            assert records.folder.is_dir()

    @pytest.mark.parametrize("place", ["occupied", "occupied/study"])
    def test_that_cannot_be_made_is_an_error(self, place: str, tmp_path: Path):
        (tmp_path / "occupied").write_text("a file where the folder should be")
        with pytest.raises(RecordError, match=f"{tmp_path / place} cannot be used: "):
            open_records(tmp_path / place)

    def test_where_a_table_cannot_be_replaced_is_an_error(self, tmp_path: Path):
        with open_records(tmp_path) as records:
            (tmp_path / "runs.csv").mkdir()
            with pytest.raises(RecordError, match=r"runs\.csv cannot be written: Is a directory"):
                records.add(rows_of(CELLS[0]))
            assert not records.finished(CELLS[0]), "what is not written down is not on record"
        assert names(tmp_path) == [".lock", "manifest.json", "runs.csv"]


class TestLock:
    def test_keeps_a_second_writer_of_the_same_process_out(self, folder: Path):
        with open_records(folder), pytest.raises(RecordError, match=f"{folder} is in use by"):
            open_records(folder)

    def test_keeps_another_process_out(self, folder: Path):
        hold = (
            "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
            "print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, str(folder / ".lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(RecordError, match=f"{folder} is in use by another process"):
                open_records(folder)
            process.stdin.close()
        with open_records(folder):
            pass

    def test_is_given_back_at_the_end_and_after_an_error(self, folder: Path):
        with pytest.raises(KeyboardInterrupt), open_records(folder):
            raise KeyboardInterrupt
        with pytest.raises(RecordError, match="another configuration"):
            open_records(folder, epochs=3)
        with open_records(folder) as records:
            assert records.finished(CELLS[0])


class TestConfiguration:
    def test_the_same_goes_on(self, folder: Path):
        with open_records(folder) as records:
            assert records.finished(CELLS[1])

    def test_a_setting_that_has_become_free_may_differ(self, folder: Path):
        free = {name: value for name, value in CONFIGURATION.items() if name != "epochs"}
        with Records(folder, "accuracy", free, free=("epochs",)) as records:
            assert records.finished(CELLS[1])

    def test_one_that_a_study_holds_fast_may_not(self, folder: Path):
        with pytest.raises(RecordError, match="epochs was 2, now 3"):
            Records(folder, "accuracy", {**CONFIGURATION, "epochs": 3}, free=("epochs",))
        with Records(folder, "accuracy", CONFIGURATION, free=("epochs",)) as records:
            assert records.finished(CELLS[1])

    @pytest.mark.parametrize(
        ("changes", "difference"),
        [
            ({"epochs": 3}, "epochs was 2, now 3"),
            ({"rate": 0.1}, "rate was None, now 0.1"),
            ({"fractions": (0.5,)}, r"fractions was \[0.1, 1.0\], now \[0.5\]"),
            ({"noise": 0.2}, "noise was None, now 0.2"),
            ({"epochs": 3, "batch_size": 64}, "batch_size was 128, now 64; epochs was 2, now 3"),
        ],
    )
    def test_another_is_refused_with_the_difference(
        self, changes: dict[str, object], difference: str, folder: Path
    ):
        before = (folder / "runs.csv").read_bytes()
        with pytest.raises(RecordError, match=rf"another configuration: {difference}\. "):
            open_records(folder, **changes)
        assert (folder / "runs.csv").read_bytes() == before

    def test_another_study_is_refused(self, folder: Path):
        with pytest.raises(RecordError, match=f"{folder} holds the study 'accuracy', not 'tune'"):
            open_records(folder, "tune")


class TestDamagedManifest:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"garbage",
            b'{"study": "accuracy"',
            b"[]",
            b"3",
            b"null",
            b'{"study": "accuracy"}',
            b'{"study": "accuracy", "configuration": {}}',
            b'{"study": "accuracy", "configuration": [], "data": {}}',
            b'{"study": "accuracy", "configuration": {}, "data": []}',
            b"\xff\xfe\x00",
        ],
    )
    def test_is_an_error_that_names_it(self, content: bytes, folder: Path):
        (folder / "manifest.json").write_bytes(content)
        with pytest.raises(RecordError, match=r"manifest\.json is no manifest of a study .*remove"):
            open_records(folder)

    def test_is_an_error_wherever_it_was_cut(self, folder: Path):
        content = (folder / "manifest.json").read_bytes()
        for size in range(0, len(content) - 2, 7):
            (folder / "manifest.json").write_bytes(content[:size])
            with pytest.raises(RecordError, match=r"manifest\.json is no manifest"):
                open_records(folder)


class TestDamagedRuns:
    def test_cut_anywhere_give_no_wrong_number(self, tmp_path: Path):
        """Whole cells as they were, or a clear error; a cell that lost a row is not on record."""
        with open_records(tmp_path) as records:
            records.add(rows_of(*CELLS[:2]))
            original = records.rows(CELLS)
        path = tmp_path / "runs.csv"
        content = path.read_bytes()
        header, *lines = content.splitlines(keepends=True)
        ends = list(itertools.accumulate(map(len, [header, *lines])))
        assert len(lines) == 4
        for size in range(len(content) + 1):
            path.write_bytes(content[:size])
            if size < ends[0]:
                with pytest.raises(RecordError, match=r"runs\.csv is no table of runs"):
                    open_records(tmp_path)
                continue
            whole = sum(end <= size for end in ends[1:]) // 2
            with open_records(tmp_path) as records:
                kept = records.rows(CELLS)
            assert len(kept) == 2 * whole, size
            if whole:
                assert kept.equals(original.iloc[: 2 * whole]), size

    def test_are_completed_by_what_is_added(self, folder: Path):
        content = (folder / "runs.csv").read_bytes()
        (folder / "runs.csv").write_bytes(content[:-3])
        with open_records(folder) as records:
            records.add(rows_of(CELLS[1]))
        with open_records(folder) as records:
            assert [records.finished(cell) for cell in CELLS] == [True, True, False, False]
        lines = (folder / "runs.csv").read_bytes().splitlines(keepends=True)
        assert lines[:3] == content.splitlines(keepends=True)[:3]
        assert len(lines) == 5

    @pytest.mark.parametrize(
        "content",
        [
            b"garbage\n",
            b"\n\n",
            b"\xff\xfe\x00\n",
            b"a,b\n1,2\n",
            b'arm,seed,epoch\n"unclosed,1,2\n',
            b"arm,seed\nsgd,0,1,2,3\nsgd,1\n",
        ],
    )
    def test_are_an_error_where_they_are_no_table(self, content: bytes, folder: Path):
        (folder / "runs.csv").write_bytes(content)
        with pytest.raises(RecordError, match=r"runs\.csv is no table of runs .*remove it"):
            open_records(folder)

    def test_are_an_error_where_they_cannot_be_read(self, folder: Path):
        (folder / "runs.csv").unlink()
        (folder / "runs.csv").mkdir()
        with pytest.raises(RecordError, match=r"runs\.csv .*directory"):
            open_records(folder)


class TestRows:
    def test_come_in_the_order_of_the_cells_and_their_epochs(self, folder: Path):
        with open_records(folder) as records:
            records.add(rows_of(*CELLS[2:]))
            wanted = [CELLS[3], CELLS[0], CELLS[2]]
            rows = records.rows(wanted)
        assert list(zip(rows["arm"], rows["seed"], rows["epoch"], strict=True)) == [
            (cell.arm, cell.seed, epoch) for cell in wanted for epoch in (1, 2)
        ]
        np.testing.assert_array_equal(rows.index, range(6))

    def test_are_none_where_there_is_no_record(self, tmp_path: Path):
        with open_records(tmp_path) as records:
            assert records.rows(CELLS).empty
            assert not records.finished(CELLS[0])
        assert names(tmp_path) == [".lock"], "nothing is written before there is something"

    @pytest.mark.parametrize(
        "other",
        [
            Cell(WORKLOAD, "adam", 0.1, 0),
            Cell(WORKLOAD, "sgd", 0.2, 0),
            Cell(WORKLOAD, "sgd", 0.1, 2),
            Cell(Workload("cifar10", epochs=2), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=1), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=3), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=2, batch_size=64), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=2, fraction=0.5), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=2, split="validation"), "sgd", 0.1, 0),
            Cell(Workload("mnist", epochs=2, diagnostics=True), "sgd", 0.1, 0),
            Cell(WORKLOAD, "sgd", 0.1, 0, schedule="cosine"),
            Cell(WORKLOAD, "sgd", 0.1, 0, settings=(("momentum", 0.9),)),
        ],
    )
    def test_of_another_cell_are_others(self, other: Cell, folder: Path):
        with open_records(folder) as records:
            assert records.finished(CELLS[0])
            assert not records.finished(other)
            assert records.rows([other]).empty

    def test_hold_what_only_some_arms_have(self, folder: Path):
        with open_records(folder) as records:
            records.add(rows_of(CELLS[2]).assign(alpha_mean=1.5))
        with open_records(folder) as records:
            assert records.rows(CELLS[:2])["alpha_mean"].isna().all()
            assert (records.rows([CELLS[2]])["alpha_mean"] == 1.5).all()

    def test_keep_losses_that_are_not_finite(self, tmp_path: Path):
        with open_records(tmp_path) as records:
            records.add(rows_of(CELLS[0]).assign(train_loss=[math.nan, math.inf]))
        with open_records(tmp_path) as records:
            nan, infinite = records.rows([CELLS[0]])["train_loss"]
        assert math.isnan(nan)
        assert infinite == math.inf


class TestNumbers:
    def test_have_seven_significant_digits_and_keep_them(self, tmp_path: Path):
        """Through writing, reading and writing again, to the last bit and the last byte."""
        rng = np.random.default_rng(0)
        values = rng.random(400) * 10.0 ** rng.integers(-9, 6, 400)
        cells = [Cell(WORKLOAD, "sgd", 0.1, seed) for seed in range(200)]
        with open_records(tmp_path) as records:
            records.add(rows_of(*cells).assign(train_loss=values))
        written = (tmp_path / "runs.csv").read_text()
        with open_records(tmp_path) as records:
            expected = [float(f"{value:.7g}") for value in values]
            assert records.rows(cells)["train_loss"].tolist() == expected
            records.add(rows_of(CELLS[2]))
        assert (tmp_path / "runs.csv").read_text().startswith(written)

    @pytest.mark.parametrize("rate", [0.1, 1 / 3, 0.123456789, 1e-7, 3e-4, np.nextafter(0.1, 1)])
    def test_of_a_cell_name_it_with_all_their_digits(self, rate: float, tmp_path: Path):
        """Else it would never be finished."""
        cell = Cell(Workload("mnist", epochs=2, fraction=2 / 3), "sgd", float(rate), 0)
        with open_records(tmp_path) as records:
            records.add(rows_of(cell))
            assert records.finished(cell)
        with open_records(tmp_path) as records:
            assert records.finished(cell)


class TestManifest:
    def test_says_how_the_records_were_made(self, folder: Path):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["study"] == "accuracy"
        assert manifest["configuration"] == CONFIGURATION | {"fractions": [0.1, 1.0]}
        assert list(manifest["arms"]) == ["sgd"]
        assert manifest["seeds"] == [0, 1]
        assert manifest["data"] == {"mnist": {"source": "IDX files", "checksum": "abc"}}
        (made_by,) = manifest["made_by"]
        assert set(made_by["versions"]) > {"python", "jax", "optax", "neuroplastic-optax"}
        assert made_by["device"]
        assert made_by["commit"]

    def test_grows_with_the_records(self, folder: Path):
        with open_records(folder) as records:
            records.note_data("mnist-subset0.5", {"source": "IDX files", "checksum": "def"})
            records.add(rows_of(CELLS[3]))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert sorted(manifest["arms"]) == ["adam", "sgd"]
        assert manifest["seeds"] == [0, 1]
        assert sorted(manifest["data"]) == ["mnist", "mnist-subset0.5"]

    def test_names_every_commit_and_device_that_made_a_part(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (first,) = json.loads((folder / "manifest.json").read_text())["made_by"]
        for commit, device in (("abc", "a CPU"), ("abc", "a GPU"), ("abc", "a CPU")):
            facts = {"commit": commit, "versions": {}, "device": device}
            monkeypatch.setattr(records_module, "circumstances", lambda facts=facts: facts)
            with open_records(folder) as records:
                records.add(rows_of(CELLS[2 if device == "a CPU" else 3]))
        made_by = json.loads((folder / "manifest.json").read_text())["made_by"]
        assert made_by[0] == first
        assert [made["device"] for made in made_by[1:]] == ["a CPU", "a GPU"]

    def test_names_each_of_them_once(self, tmp_path: Path):
        facts = {"commit": "abc", "versions": {}, "device": "a CPU"}
        with open_records(tmp_path / "study") as records:
            records.add(rows_of(*CELLS[:2]), [facts, facts])
        assert json.loads((tmp_path / "study/manifest.json").read_text())["made_by"] == [facts]

    def test_is_of_the_same_columns_as_a_cell(self):
        assert list(CELLS[0].fields()) == CELL_COLUMNS


class TestCommit:
    @pytest.fixture(autouse=True)
    def _as_a_process_that_begins(self) -> Iterator[None]:
        records_module._commit.cache_clear()
        yield
        records_module._commit.cache_clear()

    @pytest.fixture
    def repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A repository with both packages, as the code would see its own."""
        for package in ("experiments", "neuroplastic_optax"):
            (tmp_path / package).mkdir()
            (tmp_path / package / "code.py").write_text("x = 1\n")
        (tmp_path / "README.md").write_text("old\n")
        self.git(tmp_path, "init", "--quiet")
        self.git(tmp_path, "add", ".")
        self.git(tmp_path, "commit", "--quiet", "--message", "first")
        monkeypatch.setattr(records_module, "__file__", str(tmp_path / "experiments/records.py"))
        return tmp_path

    @staticmethod
    def git(folder: Path, *arguments: str) -> str:
        settings = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def noted(self, folder: Path) -> str:
        with open_records(folder / "study") as records:
            records.add(rows_of(CELLS[0]))
        return json.loads((folder / "study/manifest.json").read_text())["made_by"][0]["commit"]

    def test_is_that_of_the_code(self, repository: Path):
        assert self.noted(repository) == self.git(repository, "rev-parse", "HEAD")

    def test_is_that_of_what_was_loaded_though_another_one_is_checked_out_meanwhile(
        self, repository: Path
    ):
        loaded = self.noted(repository)
        self.git(repository, "commit", "--quiet", "--allow-empty", "--message", "second")
        with open_records(repository / "study") as records:
            records.add(rows_of(CELLS[1]))
        made_by = json.loads((repository / "study/manifest.json").read_text())["made_by"]
        assert [made["commit"] for made in made_by] == [loaded]

    @pytest.mark.parametrize("package", ["experiments", "neuroplastic_optax"])
    def test_is_marked_where_the_code_was_changed(self, package: str, repository: Path):
        (repository / package / "code.py").write_text("x = 2\n")
        assert self.noted(repository) == self.git(repository, "rev-parse", "HEAD") + "+"

    def test_is_not_marked_where_something_else_was(self, repository: Path):
        (repository / "README.md").write_text("new\n")
        assert self.noted(repository) == self.git(repository, "rev-parse", "HEAD")

    def test_is_unknown_outside_of_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(records_module, "__file__", str(tmp_path / "records.py"))
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert self.noted(tmp_path) == "unknown"
