"""Names on the command line: ``module:callable(setting=value)``."""

from pathlib import Path

import pytest

from experiments.cells import ConfigError
from experiments.spec import Spec, find_callable, parse, provenance


class TestParse:
    @pytest.mark.parametrize(
        ("text", "spec"),
        [
            ("full", Spec("full")),
            ("optax.contrib:muon", Spec("optax.contrib:muon")),
            ("a/b.py:make(x=1, y=(1, 2))", Spec("a/b.py:make", settings={"x": 1, "y": (1, 2)})),
            ("optax:adamw( b1 = .9 )", Spec("optax:adamw", settings={"b1": 0.9})),
            (
                "permuted(optax:lion(b1=0.9), adam)",
                Spec("permuted", ("optax:lion(b1=0.9)", "adam")),
            ),
        ],
    )
    def test_reads_names_settings_and_names_inside(self, text: str, spec: Spec):
        assert parse(text) == spec

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "not of the form"),
            ("optax:adam(b1=0.9", "not of the form|brackets"),
            ("optax:adam(b1=zero)", "b1 must be a number, .* got zero"),
            ("optax:adam(b1=1, b1=2)", "gives b1 twice"),
            ("f((x)", "brackets"),
        ],
    )
    def test_refuses_what_it_cannot_read(self, text: str, said: str):
        with pytest.raises(ConfigError, match=said):
            parse(text)


class TestImport:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("no_such_package:make", "no_such_package cannot be imported .*ModuleNotFoundError"),
            ("optax:no_such_optimizer", "optax has no 'no_such_optimizer'"),
            ("optax:__version__", "cannot be called"),
            ("absent.py:make", "absent.py is no file"),
        ],
    )
    def test_that_fails_is_one_clear_error(self, name: str, said: str):
        with pytest.raises(ConfigError, match=said):
            find_callable(parse(name))

    def test_of_a_file_with_an_error_names_both(self, tmp_path: Path):
        (tmp_path / "broken.py").write_text("1 / 0\n")
        with pytest.raises(ConfigError, match=r"broken\.py cannot be imported \(ZeroDivisionError"):
            find_callable(parse(f"{tmp_path}/broken.py:make"))

    def test_of_a_file_finds_its_callable(self, tmp_path: Path):
        (tmp_path / "own.py").write_text("def make(): return 3\n")
        assert find_callable(parse(f"{tmp_path}/own.py:make"))() == 3


class TestProvenance:
    def test_of_a_package_is_its_version(self):
        assert provenance(parse("optax.contrib:muon")).startswith("optax 0.")

    def test_of_a_file_changes_with_the_file(self, tmp_path: Path):
        found = []
        for body in ("x = 1\n", "x = 2\n"):
            (tmp_path / "own.py").write_text(body)
            found.append(provenance(parse(f"{tmp_path}/own.py:make")))
        assert found[0] != found[1]
