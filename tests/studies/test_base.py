"""What all studies share: what can be asked of them, and what is refused."""

import dataclasses
import math
import re
from typing import get_args

import pytest

from experiments.arms import ARMS
from experiments.cells import Cell, ConfigError, Workload
from experiments.records import CELL_COLUMNS
from experiments.studies import STUDIES
from experiments.studies.accuracy import Accuracy
from experiments.studies.base import Preset, Study
from experiments.studies.optimizers import Optimizers
from experiments.tasks import TASKS

CONFIGS = [*STUDIES.values()]


class TestRefusals:
    """Each names the field, the value, and what would do."""

    @pytest.mark.parametrize("config", CONFIGS)
    def test_an_unknown_data_set_is_answered_with_the_known_ones(self, config: type[Study]):
        known = ", ".join(TASKS)
        with pytest.raises(ConfigError, match=f"task 'imagenet'; known are {known}"):
            config(task="imagenet")

    @pytest.mark.parametrize("config", CONFIGS)
    def test_an_unknown_arm_is_answered_with_the_known_ones(self, config: type[Study]):
        known = re.escape(", ".join(ARMS))
        with pytest.raises(ConfigError, match=f"arms 'lion'; known are {known}"):
            config(arms=("full", "lion"))

    @pytest.mark.parametrize("config", CONFIGS)
    def test_no_arm_at_all_is_refused(self, config: type[Study]):
        with pytest.raises(ConfigError, match=r"arms must not be empty; known are full,"):
            config(arms=())

    @pytest.mark.parametrize("config", CONFIGS)
    def test_an_arm_named_twice_is_refused(self, config: type[Study]):
        with pytest.raises(ConfigError, match="arms must differ, got full full"):
            config(arms=("full", "full"))

    @pytest.mark.parametrize("config", CONFIGS)
    @pytest.mark.parametrize("field", ["seeds", "epochs", "batch_size"])
    @pytest.mark.parametrize("value", [0, -1])
    def test_a_number_below_one_is_refused(self, config: type[Study], field: str, value: int):
        with pytest.raises(ConfigError, match=f"{field} must be at least 1, got {value}"):
            config(**{field: value})

    @pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
    def test_a_learning_rate_that_is_not_positive_and_finite_is_refused(self, value: float):
        with pytest.raises(ConfigError, match=f"learning_rate must be .*, got {value}"):
            Accuracy(learning_rate=value)


class TestStudies:
    @pytest.mark.parametrize("config", CONFIGS)
    def test_have_defaults_for_everything(self, config: type[Study]):
        assert config().task in TASKS

    @pytest.mark.parametrize("config", CONFIGS)
    def test_cannot_be_changed(self, config: type[Study]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().seeds = 6

    @pytest.mark.parametrize("config", CONFIGS)
    def test_explain_every_setting(self, config: type[Study]):
        texts = " ".join(base.__doc__ or "" for base in config.__mro__)
        for field in dataclasses.fields(config):
            assert re.search(rf"^\s+{field.name}: \S", texts, re.MULTILINE), field.name


class TestPresets:
    @pytest.mark.parametrize("config", CONFIGS)
    @pytest.mark.parametrize("preset", get_args(Preset))
    def test_change_the_defaults_of_known_settings_alone(self, config: type[Study], preset: Preset):
        study = config.at(preset)
        assert study.preset == preset
        changed = config.sizes.get(preset, {})
        assert {name: getattr(study, name) for name in changed} == dict(changed)

    @pytest.mark.parametrize("config", CONFIGS)
    def test_paper_is_the_default_and_reduces_nothing(self, config: type[Study]):
        assert config.at("paper") == config()
        assert config().reductions() == {}

    @pytest.mark.parametrize("config", CONFIGS)
    def test_smoke_is_small(self, config: type[Study]):
        smoke = config.at("smoke")
        assert smoke.epochs == 1
        assert smoke.seeds <= 2
        assert smoke.reductions()["epochs"] == (1, config().epochs)

    def test_cpu_makes_the_task_small_and_its_epochs_few(self):
        workload = Optimizers.at("cpu").workload()
        assert workload.task == "cifar10_small"
        assert workload.epochs < 50

    def test_count_what_was_asked_for_on_the_command_line_too(self):
        assert Accuracy(seeds=3).reductions() == {"seeds": (3, 5)}

    def test_count_nothing_that_is_more_than_in_the_full_protocol(self):
        assert Accuracy(seeds=20).reductions() == {}


def test_a_cell_is_named_by_the_columns_of_the_records():
    cell = Cell(Workload("mnist"), "sgd", 0.1, 7)
    assert list(cell.fields()) == CELL_COLUMNS
    assert cell.fields()["seed"] == 7
    assert cell.fields()["task"] == "mnist"
