"""Files of a size, no circles, and a page of results that imports nothing that trains."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").rglob("*.py"))
LONGEST = 400  # lines


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The modules of ``experiments`` that a file imports itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(MODULES)) or {node.module}
    return found & set(MODULES)


def test_no_module_imports_itself_by_a_detour():
    left = {name: imports_of(path) - {name} for name, path in MODULES.items()}
    while free := {name for name, needed in left.items() if not needed & set(left)}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left


@pytest.mark.parametrize("name", ["experiments.results", "experiments.tables"])
def test_the_page_of_results_imports_nothing_that_trains(name: str):
    code = f"import sys, {name}; print({{'jax', 'flax', 'optax', 'orbax'}} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_no_library_imports_the_command_line(folder: str):
    for path in (ROOT / folder).rglob("*.py"):
        assert "experiments.__main__" not in imports_of(path), path.name


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_file_is_too_long(path: Path):
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST
