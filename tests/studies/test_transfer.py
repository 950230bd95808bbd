"""Figure 5: settings tuned elsewhere."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from experiments.cells import ConfigError
from experiments.records import RecordError
from experiments.report import write_report
from experiments.studies.selection import FAMILIES
from experiments.studies.transfer import Transfer
from tests.studies.made_up import Done, StudyTests, execute, write_selections


def selected(folder: Path, rate: float = 0.05) -> Path:
    folder.mkdir(exist_ok=True)
    columns = ["family", "arm", "learning_rate"]
    table = pd.DataFrame([(family, family, rate) for family in FAMILIES], columns=columns)
    table.to_csv(folder / "selections.csv", index=False)
    return folder


class TestTransfer(StudyTests):
    study = Transfer(seeds=2, epochs=2)

    @classmethod
    def prepared(cls, folder: Path) -> Transfer:
        return dataclasses.replace(cls.study, tuned=selected(folder / "selection-mnist"))

    def test_takes_published_and_selected_settings_unchanged(self, done: Done):
        rates = done.rows.groupby("arm")["learning_rate"].agg(set)
        assert rates["full"] == rates["gradient_only"] == {0.1, 0.05}
        assert rates["adam"] == rates["sgd_homeostasis"] == {0.05}
        assert "No runs diverged." in done.report

    def test_without_them_says_how_to_get_them(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"selections\.csv is missing.*experiments selection"):
            execute(Transfer(tuned=tmp_path / "absent", out=tmp_path / "out"))

    def test_refuses_those_of_the_study_tune(self, tmp_path: Path):
        tuned = write_selections(tmp_path / "tuned")
        with pytest.raises(ConfigError, match=r"no column 'family': it is not of .* selection"):
            execute(Transfer(tuned=tuned, out=tmp_path / "out"))


@pytest.mark.usefixtures("no_pictures")
class TestChangedSelections:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        out = tmp_path / "out"
        tuned = selected(tmp_path / "selection-mnist")
        execute(Transfer(seeds=1, epochs=1, tuned=tuned, out=out))
        selected(tuned, rate=0.07)
        return out

    def test_are_told_by_the_checksum_in_the_manifest(self, out: Path):
        noted = json.loads((out / "manifest.json").read_text())["configuration"]["selections"]
        assert noted["folder"] == "selection-mnist"
        assert len(noted["sha256"]) == 64

    def test_are_not_mixed_with_what_is_on_record(self, out: Path):
        with pytest.raises(RecordError, match="selections was"):
            execute(Transfer(seeds=1, epochs=1, tuned=out.parent / "selection-mnist", out=out))

    def test_keep_the_report_as_it_is(self, out: Path):
        with pytest.raises(ConfigError, match="made from selections that have changed since"):
            write_report(out)
