"""What is installed, what it imports, and that all of it is explained."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

import neuroplastic_optax

REPOSITORY = Path(__file__).parent.parent
LIBRARY = REPOSITORY / "neuroplastic_optax"
SETTINGS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
PUBLIC = {
    name: value
    for name, value in vars(neuroplastic_optax).items()
    if not name.startswith("_") and (callable(value) or inspect.ismodule(value))
}
MODULES = [neuroplastic_optax, *(value for value in PUBLIC.values() if inspect.ismodule(value))]
FUNCTIONS = {
    name: value
    for module in MODULES
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and value.__module__.startswith(module.__name__)
    and not name.startswith("_")
}
SHARED = inspect.signature(neuroplastic_optax.scale_by_plasticity)


def imported(source: str) -> Iterator[str]:
    """The top-level packages that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module.partition(".")[0]


def imports_of(package: str) -> set[str]:
    """What a package imports beyond itself and the standard library."""
    sources = [path.read_text() for path in (REPOSITORY / package).rglob("*.py")]
    found = {name for source in sources for name in imported(source)}
    return found - {package} - set(sys.stdlib_module_names)


def distributions(*requirements: str) -> set[str]:
    """Names in requirements, without versions and extras, as they are imported."""
    names = (re.match(r"[\w.-]+", requirement)[0] for requirement in requirements)
    return {name.lower().replace("-", "_") for name in names}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, made of the repository, and the wheel, made of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY],
        check=True,
        capture_output=True,
    )
    return folder


class TestDistributions:
    def test_pass_the_checks_of_the_package_index(self, built: Path):
        checked = subprocess.run(
            [sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout
        assert checked.stdout.count("PASSED") == 2

    def test_of_the_wheel_hold_the_library_alone(self, built: Path):
        (wheel,) = built.glob("*.whl")
        library = {str(path.relative_to(REPOSITORY)) for path in LIBRARY.rglob("*.py")}
        files = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert files == library | {"neuroplastic_optax/py.typed"}

    def test_say_that_they_are_typed(self):
        assert "Typing :: Typed" in PROJECT["classifiers"]

    def test_are_built_by_what_the_tests_install(self):
        """So that they are built here without a network."""
        assert set(SETTINGS["build-system"]["requires"]) <= set(
            PROJECT["optional-dependencies"]["test"]
        )


class TestVersion:
    def test_is_the_same_everywhere(self):
        version = PROJECT["version"]
        assert neuroplastic_optax.__version__ == version
        assert metadata.version("neuroplastic-optax") == version
        assert f"version: {version}" in (REPOSITORY / "CITATION.cff").read_text()


class TestImports:
    def test_of_the_library_are_jax_and_optax_alone(self):
        assert imports_of("neuroplastic_optax") == {"jax", "optax"}
        assert distributions(*PROJECT["dependencies"]) == {"jax", "optax"}

    def test_of_the_experiments_are_all_declared(self):
        extras = PROJECT["optional-dependencies"]
        declared = distributions(
            *PROJECT["dependencies"], *extras["experiments"], *extras["datasets"]
        )
        installed = metadata.packages_distributions()  # orbax comes from orbax-checkpoint
        used = {installed.get(name, [name])[0] for name in imports_of("experiments")}
        assert distributions(*used) <= declared | {"neuroplastic_optax"}

    def test_of_the_examples_are_all_declared(self):
        declared = distributions(
            *PROJECT["dependencies"], *PROJECT["optional-dependencies"]["examples"]
        )
        installed = metadata.packages_distributions()
        used = {installed.get(name, [name])[0] for name in imports_of("examples")}
        assert distributions(*used) <= declared | {"neuroplastic_optax"}

    def test_the_library_loads_no_experiment(self):
        code = "import sys, neuroplastic_optax; sys.exit('experiments' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def sections(text: str) -> dict[str, str]:
    """A docstring's sections, such as ``Args``, by their titles."""
    parts = re.split(r"^(\w+):\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class TestPublicNames:
    def test_are_about_ten_and_modules_for_the_rest(self):
        modules = {name for name, value in PUBLIC.items() if inspect.ismodule(value)}
        assert modules == {"masks", "monitoring", "schedules", "variants"}
        assert len(PUBLIC) - len(modules) <= 14

    @pytest.mark.parametrize("name", PUBLIC)
    def test_are_explained(self, name: str):
        text = PUBLIC[name].__doc__
        assert text
        assert not text.startswith(f"{name}("), "written, not generated"

    @pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
    def test_functions_say_what_they_take_and_give_with_an_example(
        self, function: Callable[..., object]
    ):
        found = sections(function.__doc__)
        assert "Returns" in found
        assert ">>> " in found["Examples"]
        code = function.__code__
        number = code.co_argcount + code.co_kwonlyargcount
        elsewhere = "not explained here are those of" in " ".join(function.__doc__.split())
        shared = set(SHARED.parameters) if elsewhere else set()
        for argument in set(code.co_varnames[:number]) - shared:
            assert re.search(rf"^  {argument}: \S", found["Args"], re.MULTILINE), argument

    @pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
    def test_functions_are_typed(self, function: Callable[..., object]):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
