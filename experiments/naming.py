"""Arms by their names: built in, from elsewhere, or placebos of other arms.

Wherever an arm is named it may be an entry of the registry, `module:callable` or
`file.py:callable`, a placebo of another arm such as `norm_matched(adam)`, and any of them with
settings in brackets.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.arm import Arm
from experiments.arms import ARMS
from experiments.cells import ConfigError
from experiments.foreign import Foreign
from experiments.placebos import PERTURBED, PLACEBOS, Placebo
from experiments.spec import Spec, parse

# Colours of arms that no entry gives one: Tol's muted ones.
OTHERS = ("#332288", "#117733", "#999933", "#AA4499", "#44AA99", "#6699CC", "#661100", "#AA7744")


def find_arm(name: str) -> Arm:
    """The arm of a name: built in, from elsewhere, or a placebo of another one.

    >>> find_arm("optax:lion(b1=0.95)").label, find_arm("adam(b2=0.99)").label
    ('lion (b1=0.95)', 'Adam (b2=0.99)')
    >>> find_arm("norm_matched(optax:lion)").label
    'lion, norm-matched'

    Raises:
      ConfigError: there is none.
    """
    return ARMS[name] if name in ARMS else _read(name)


@functools.cache
def _read(name: str) -> Arm:
    asked = parse(name)
    if asked.name in PLACEBOS and asked.arguments:
        return _placebo(name, asked)
    if asked.arguments:
        raise ConfigError(
            f"{name!r} gives {asked.name} the arm {asked.arguments[0]!r}; only "
            f"{', '.join(PLACEBOS)} take one, and settings are given as name=value."
        )
    settings = dict(asked.settings)
    rate = settings.pop("learning_rate", None)
    if asked.place:
        factory = Foreign(asked)
        title = asked.attribute
        if asked.is_file:
            title = f"{Path(asked.place).stem}.{title}"
        return Arm(
            name,
            _with_settings(title, settings),
            factory,
            settings,
            rate or factory.learning_rate,
            colour=_colour_of(name),
            role="named",
        )
    if asked.name not in ARMS:
        raise ConfigError(
            f"unknown arms {name!r}; known are {', '.join(ARMS)}, and module:callable or "
            f"file.py:callable for others."
        )
    of = ARMS[asked.name]
    for setting in settings:
        if not of.takes(setting):
            raise ConfigError(f"{name!r}: the arm {asked.name} has no setting {setting!r}.")
    return dataclasses.replace(
        of,
        name=name,
        label=_with_settings(of.label, settings),
        settings={**of.settings, **settings},
        learning_rate=rate or of.learning_rate,
        family=of.family or of.name,
        colour="",
        role="named",
    )


def _placebo(name: str, asked: Spec) -> Arm:
    """A placebo of an arm; those of the full method are entries of their own."""
    if asked.settings or len(asked.arguments) > 2:
        raise ConfigError(
            f"{name!r}: {asked.name} takes an arm and, where it is not the gradient, a base."
        )
    if asked.name == PERTURBED and len(asked.arguments) > 1:
        raise ConfigError(f"{name!r}: {PERTURBED} takes an arm alone.")
    of, *bases = map(find_arm, asked.arguments)
    if of is ARMS["full"] and not bases and asked.name in ARMS:
        return ARMS[asked.name]
    base = bases[0] if bases else None
    how = {
        "norm_matched": "norm-matched",
        "permuted": "permuted",
        "random": "random factors" if of.has_alpha else "random sizes",
        "perturbed": "perturbed by one rounding error",
    }[asked.name]
    beside = f" to {base.label}" if base else ""
    return Arm(
        name,
        f"{of.label}, {how}{beside}",
        Placebo(asked.name, of, base),
        learning_rate=of.learning_rate,
        colour=_colour_of(name),
        role="named",
    )


def _with_settings(title: str, settings: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"{title} ({inside})" if inside else title


def _colour_of(name: str) -> str:
    return OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]


def label(arm: str) -> str:
    """What figures and tables call an arm."""
    return find_arm(arm).label


def colour(arm: str) -> str:
    """The colour of an arm, or of the family that it is a variant of."""
    return find_arm(arm).colour or colour(find_arm(arm).family)
