"""What helps those who work on the project holds together: make, CI, constraints, templates."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
GITHUB = REPOSITORY / ".github"


def read(path: str) -> Any:
    return yaml.safe_load((REPOSITORY / path).read_text())


def commands(workflow: str) -> Iterator[str]:
    """The shell commands of a workflow's steps."""
    for job in read(workflow)["jobs"].values():
        yield from (step["run"] for step in job.get("steps", []) if "run" in step)


class TestMake:
    def test_alone_lists_every_target_and_what_it_does(self):
        listed = subprocess.run(
            ["make", "--no-print-directory"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = dict(re.findall(r"^make ([\w-]+) +(\S.*)$", listed, re.MULTILINE))
        assert set(found) == TARGETS

    @pytest.mark.parametrize(
        "file",
        [
            "README.md",
            "CONTRIBUTING.md",
            "docs/index.md",
            "docs/benchmarks.md",
            ".github/workflows/test.yml",
            ".github/workflows/release.yml",
            ".pre-commit-config.yaml",
        ],
    )
    def test_has_each_target_that_is_named(self, file: str):
        text = (REPOSITORY / file).read_text()
        assert set(re.findall(r"(?:`|run: |\$ )make ([a-z-]+)", text)) <= TARGETS

    @pytest.mark.parametrize("wheels", [True, False])
    def test_needs_no_package_index_where_there_are_wheels(self, wheels: bool, tmp_path: Path):
        (tmp_path / "Makefile").write_text(MAKEFILE)
        (tmp_path / "pyproject.toml").write_text("")
        if wheels:
            (tmp_path / "wheels").mkdir()
            (tmp_path / "wheels/flax-0-py3-none-any.whl").write_text("")
        would = subprocess.run(
            ["make", "-n", "gpu", "PYTHON=python3.99"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        installs = [line for line in would.splitlines() if "pip install" in line]
        assert installs
        assert all(("--no-index" in line) == wheels for line in installs)
        assert ("python3.99 -m benchmarks.gpu" in would) == wheels


class TestLowestVersions:
    def test_are_those_that_the_project_declares(self):
        extras = PROJECT["optional-dependencies"]
        declared = [*PROJECT["dependencies"], *extras["experiments"], *extras["test"]]
        lines = (REPOSITORY / "tests/constraints_lowest.txt").read_text().splitlines()
        assert [line for line in lines if not line.startswith("#")] == [
            requirement.replace(">=", "==") for requirement in declared
        ]

    def test_run_on_the_lowest_python(self):
        jobs = read(".github/workflows/test.yml")["jobs"]
        lowest = PROJECT["requires-python"].removeprefix(">=")
        pythons = [
            step["with"]["python-version"] for step in jobs["lowest"]["steps"] if "with" in step
        ]
        assert pythons == [lowest]
        assert jobs["newest"]["strategy"]["matrix"]["python"][0] == lowest


class TestGitHub:
    @pytest.mark.parametrize(
        ("schema", "files"),
        [
            ("github-workflows", "workflows/*.yml"),
            ("dependabot", "dependabot.yml"),
            ("github-issue-forms", "ISSUE_TEMPLATE/*.yml"),
        ],
    )
    def test_can_read_the_settings(self, schema: str, files: str):
        paths = sorted(GITHUB.glob(files))
        assert paths
        checked = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{schema}", *paths],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout

    def test_runs_what_a_contributor_runs(self):
        assert set(commands(".github/workflows/test.yml")) == {
            "make test",
            "make test-lowest",
            "make docs",
        }

    def test_publishes_only_what_was_tested_and_checked(self):
        jobs = read(".github/workflows/release.yml")["jobs"]
        assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
        assert "make dist" in commands(".github/workflows/release.yml")
        assert set(jobs["publish"]["needs"]) == {"test", "build"}
        assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_commits_are_checked_by_the_tools_that_lint_uses():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in repository["hooks"]}
    recipe = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    assert tools == {f".venv/bin/{tool}" for tool in re.findall(r"\$\(BIN\)/(\S+)", recipe)}
