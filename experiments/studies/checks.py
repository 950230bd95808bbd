"""Refusals of settings that no study can run with."""

from experiments.cells import ConfigError


def check_at_least_one(name: str, value: int) -> None:
    """Refuses a number below one."""
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}.")


def check_share(name: str, value: float) -> None:
    """Refuses what is no share above zero."""
    if not 0 < value <= 1:
        raise ConfigError(f"{name} must lie in (0, 1], got {value}.")


def check_known(field: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuses a name that is not known, and none at all."""
    for value in values:
        if value not in known:
            raise ConfigError(f"unknown {field} {value!r}; known are {', '.join(known)}.")
    if not values:
        raise ConfigError(f"{field} must not be empty; known are {', '.join(known)}.")
