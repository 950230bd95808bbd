"""The store: a finished cell is one number for every study, whole or refused."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from experiments import store as store_module
from experiments.arms import ARMS
from experiments.cells import Cell, Workload
from experiments.store import Store, StoreError

WORKLOAD = Workload("mnist", epochs=2)
ONE, OTHER = (Cell(WORKLOAD, "sgd", 0.1, seed) for seed in (0, 1))
DATA = "checksum of the data"
HERE = {"commit": "abc", "versions": {"jax": "1"}, "device": "a device"}


def rows_of(*cells: Cell, loss: float = 1 / 3) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {**cell.fields(), "epoch": epoch, "train_loss": loss, "test_loss": float("nan")}
            for cell in cells
            for epoch in (1, 2)
        ]
    )


def add(folder: Path, *cells: Cell, loss: float = 1 / 3) -> None:
    Store(folder).add(rows_of(*cells, loss=loss), dict.fromkeys(cells, DATA), HERE)


def find(folder: Path, *cells: Cell, data: str = DATA) -> list[Cell]:
    return list(Store(folder).find(dict.fromkeys(cells, data)))


class TestFinishedCell:
    def test_is_found_with_its_rows_and_what_made_them(self, tmp_path: Path):
        add(tmp_path, ONE, OTHER)
        rows, made_by = Store(tmp_path).find({OTHER: DATA})[OTHER]
        pd.testing.assert_frame_equal(pd.DataFrame(rows), rows_of(OTHER), check_exact=True)
        assert made_by == HERE

    def test_is_not_found_in_a_store_that_is_not_there(self, tmp_path: Path):
        assert find(tmp_path / "absent", ONE) == []
        assert not (tmp_path / "absent").exists()

    @pytest.mark.parametrize(
        "change",
        [
            lambda cell: dataclasses.replace(cell, seed=5),
            lambda cell: dataclasses.replace(cell, learning_rate=0.2),
            lambda cell: dataclasses.replace(cell, arm="adam"),
            lambda cell: dataclasses.replace(cell, schedule="another"),
            lambda cell: dataclasses.replace(
                cell, workload=dataclasses.replace(cell.workload, label_noise=0.2)
            ),
        ],
    )
    def test_is_no_other_cell(self, change, tmp_path: Path):
        add(tmp_path, ONE)
        assert find(tmp_path, change(ONE)) == []

    def test_is_of_its_data_alone(self, tmp_path: Path):
        add(tmp_path, ONE)
        assert find(tmp_path, ONE, data="another checksum") == []

    def test_is_of_its_arm_s_settings_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        add(tmp_path, ONE)
        monkeypatch.setitem(
            ARMS, "sgd", dataclasses.replace(ARMS["sgd"], settings=ARMS["adam"].settings)
        )
        assert find(tmp_path, ONE) == []

    def test_is_found_after_cells_get_a_new_property(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """An absent key means the default."""
        add(tmp_path, ONE)
        fields = Cell.fields
        monkeypatch.setattr(Cell, "fields", lambda cell: {**fields(cell), "new": "usual"})
        monkeypatch.setitem(store_module.DEFAULTS, "new", "usual")
        assert find(tmp_path, ONE) == [ONE]

    def test_stays_as_it_was_first(self, tmp_path: Path):
        add(tmp_path, ONE, loss=0.5)
        add(tmp_path, ONE, loss=0.25)
        rows, _ = Store(tmp_path).find({ONE: DATA})[ONE]
        assert [row["train_loss"] for row in rows] == [0.5, 0.5]


def test_two_writers_may_add_at_once(tmp_path: Path):
    """A lock belongs to an open file: threads stand in for processes."""
    cells = [dataclasses.replace(ONE, seed=seed) for seed in range(20)]
    with ThreadPoolExecutor(2) as writers:
        list(writers.map(lambda loss: add(tmp_path, *cells, loss=loss), (0.5, 0.25)))
    losses = {
        rows[0]["train_loss"]
        for rows, _ in Store(tmp_path).find(dict.fromkeys(cells, DATA)).values()
    }
    assert losses <= {0.5, 0.25}
    assert find(tmp_path, *cells) == cells
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", *[".json"] * len(cells)]


class TestDamagedFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        add(tmp_path, ONE)
        (path,) = tmp_path.glob("*.json")
        return path

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-20],
            lambda text: text.replace("0.3333", "0.3334"),
            lambda text: text.replace("a device", "no device"),
            lambda _: "",
            lambda _: "[]",
        ],
    )
    def test_is_an_error_that_names_it(self, damage, path: Path):
        path.write_text(damage(path.read_text()))
        with pytest.raises(StoreError, match=f"{path} .*remove it"):
            find(path.parent, ONE)

    def test_of_another_cell_is_an_error(self, path: Path):
        content = json.loads(path.read_text())
        path.rename(path.with_name("kept"))
        add(path.parent, OTHER)
        (other,) = path.parent.glob("*.json")
        other.write_text(json.dumps(content))
        with pytest.raises(StoreError, match="holds another cell"):
            find(path.parent, OTHER)

    def test_a_file_in_the_folder_s_place_is_an_error(self, tmp_path: Path):
        (tmp_path / "store").write_text("")
        with pytest.raises(StoreError, match="store cannot be used"):
            add(tmp_path / "store", ONE)
