"""What a command line names that is not built in: ``module:callable(setting=value)``."""

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.cells import ConfigError

_CALL = re.compile(r"(?P<name>[^()=,]+?)\s*(?:\((?P<inside>.*)\))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A name with what stands in its brackets.

    Attributes:
      name: built in, or ``module:callable``, or ``path/to/file.py:callable``.
      arguments: names of the same form.
      settings: keyword arguments.
    """

    name: str
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        """The module or the file; empty where the name is built in."""
        return self.name.rpartition(":")[0]

    @property
    def attribute(self) -> str:
        """The name of the callable."""
        return self.name.rpartition(":")[2]

    @property
    def is_file(self) -> bool:
        """Whether the callable is in a file that is given by its path."""
        return self.place.endswith(".py")


def parse(text: str) -> Spec:
    """Reads a name with settings in brackets.

    >>> parse("optax:adamw(weight_decay=0.1, b2=0.95)")
    Spec(name='optax:adamw', arguments=(), settings={'weight_decay': 0.1, 'b2': 0.95})
    >>> parse("norm_matched(optax:lion, full(scale=1))").arguments
    ('optax:lion', 'full(scale=1)')

    Raises:
      ConfigError: it is none.
    """
    call = _CALL.fullmatch(text.strip())
    if not call:
        raise ConfigError(
            f"{text!r} is not of the form name, module:callable or file.py:callable, with or "
            "without (setting=value, ...)."
        )
    arguments: list[str] = []
    settings: dict[str, Any] = {}
    for part in _split(call["inside"] or "", text):
        name, equals, value = part.partition("=")
        if not (equals and name.strip().isidentifier()):
            arguments.append(part)
            continue
        if name.strip() in settings:
            raise ConfigError(f"{text!r} gives {name.strip()} twice.")
        try:
            settings[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise ConfigError(
                f"{text!r}: {name.strip()} must be a number, a string, True, False, None or a "
                f"tuple of these, got {value.strip()}."
            ) from None
    return Spec(call["name"].strip(), tuple(arguments), settings)


def _split(inside: str, text: str) -> list[str]:
    """The parts between commas that are in no inner brackets."""
    parts, depth = [""], 0
    for character in inside:
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            break
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise ConfigError(f"{text!r} has brackets that do not match.")
    return [part.strip() for part in parts if part.strip()]


def find_callable(spec: Spec) -> Callable[..., Any]:
    """Imports what a name means.

    Raises:
      ConfigError: it cannot be imported, is not there, or cannot be called.
    """
    found: Any = _import_file(Path(spec.place)) if spec.is_file else _import_module(spec)
    for name in spec.attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(
                f"{spec.place} has no {spec.attribute!r}, which {spec.name} asks for."
            )
        found = getattr(found, name)
    if not callable(found):
        raise ConfigError(f"{spec.name} is {found!r}, which cannot be called.")
    return found


def _import_module(spec: Spec) -> ModuleType:
    try:
        return importlib.import_module(spec.place)
    except Exception as error:  # the module's own code may raise anything
        raise ConfigError(
            f"{spec.place} cannot be imported for {spec.name} ({type(error).__name__}: {error})."
        ) from error


@functools.cache
def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{path} is no file.")
    name = f"experiments_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "it ends in .py"
    assert spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(
            f"{path} cannot be imported ({type(error).__name__}: {error})."
        ) from error
    return module


def provenance(spec: Spec) -> str:
    """What decides what a name means: the package's version, or the checksum of the file.

    >>> provenance(parse("optax:lion")).partition(" ")[0]
    'optax'
    """
    if spec.is_file:
        return f"sha256 {_checksum(Path(spec.place))}"
    distributions = _distributions().get(spec.place.partition(".")[0])
    if distributions:
        return f"{distributions[0]} {importlib.metadata.version(distributions[0])}"
    file = getattr(_import_module(spec), "__file__", None)
    return f"sha256 {_checksum(Path(file))}" if file else "built in"


@functools.cache  # it reads the files of every package
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def slug(name: str) -> str:
    """A name as a part of file names.

    >>> slug("tasks/mine.py:make(size=3)")
    'tasks-mine.py-make-size-3'
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
