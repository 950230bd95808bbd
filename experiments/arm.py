"""An arm: what competes in a study."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import optax

import neuroplastic_optax as npx
from experiments.foreign import Foreign
from experiments.optimizers import PUBLISHED_LEARNING_RATE, Factory, Training, full, modulated
from experiments.placebos import Placebo
from experiments.schedules import learning_rate_schedule

Role = Literal["fair test", "ablation", "other", "wrapped", "design space", "selection", "named"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One competitor of a study.

    Attributes:
      name: what the command line and the records call it.
      label: what figures and tables call it.
      factory: builds the optimizer from a learning rate, which may be traced, the training and
        the settings.
      settings: keyword arguments of the factory.
      learning_rate: the one it is run with where no study has tuned it; the middle of its search.
      family: the arm that it is a variant of; an arm of its own names itself.
      colour: in every figure; a variant without one shares that of its family.
      has_alpha: whether its state keeps diagnostics of α.
      role: which studies take it.
    """

    name: str
    label: str
    factory: Factory
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float = PUBLISHED_LEARNING_RATE
    _: dataclasses.KW_ONLY
    family: str = ""
    colour: str = ""
    has_alpha: bool = False
    role: Role = "fair test"

    def make(
        self, learning_rate: optax.ScalarOrSchedule, training: Training, **searched: Any
    ) -> optax.GradientTransformation:
        """The optimizer at a learning rate, which may be traced, under the training's schedule.

        Args:
          learning_rate: the peak; a schedule is taken as it is.
          training: what else the optimizer may depend on.
          **searched: settings that replace the arm's own; they may be traced.
        """
        if not callable(learning_rate):
            learning_rate = learning_rate_schedule(training.schedule, learning_rate, training.steps)
        return self.factory(learning_rate, training, **{**self.settings, **searched})

    def describe(self) -> str:
        """The factory and its settings, for the records.

        >>> from experiments.arms import ARMS
        >>> ARMS["adamw"].describe()
        'plain(alias=adamw, weight_decay=0.01)'
        """
        if isinstance(self.factory, Foreign | Placebo):
            return self.factory.describe(self.settings)
        settings = (f"{name}={_text(value)}" for name, value in self.settings.items())
        return f"{self.factory.__name__}({', '.join(settings)})"

    def takes(self, setting: str) -> bool:
        """Whether it has a setting of some name, which a search may then vary.

        >>> from experiments.arms import ARMS
        >>> ARMS["adamw"].takes("b1"), ARMS["sgd"].takes("b1"), ARMS["full"].takes("activity_decay")
        (True, False, True)
        """
        if isinstance(self.factory, Foreign | Placebo):
            return self.factory.takes(setting)
        makers = [self.factory, *(x for x in self.settings.values() if callable(x))]
        makers += [npx.scale_by_plasticity] if self.factory is full else []
        makers += [npx.with_plasticity] if self.factory is modulated else []
        return setting != "learning_rate" and any(
            parameter.kind is not inspect.Parameter.VAR_KEYWORD
            for maker in makers
            if (parameter := inspect.signature(maker).parameters.get(setting))
        )

    def alias_takes(self, setting: str) -> bool:
        """Whether it is another library's optimizer that has the setting in its own right."""
        if isinstance(self.factory, Foreign):
            return self.factory.names(setting)
        alias = self.settings.get("alias")
        return alias is not None and setting in inspect.signature(alias).parameters


def _text(value: Any) -> str:
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value))
