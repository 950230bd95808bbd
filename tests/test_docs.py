"""The documentation is true: its code runs, and its API page has every public name."""

import re
from pathlib import Path

import jax
import pytest

import neuroplastic_optax as npx

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|data):: (\w+)$", re.MULTILINE)


def blocks(page):
    """The page's Python blocks, each moved down to the lines that it has in the page."""
    text = page.read_text("utf-8")
    return ["\n" * text[: block.start(1)].count("\n") + block[1] for block in BLOCK.finditer(text)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name
)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    with jax.numpy_rank_promotion("allow"):  # JAX's default, and so the reader's
        for block in blocks(page):
            exec(compile(block, page, "exec"), namespace)


def test_pages_with_code_are_found():
    assert {page.name for page in PAGES if blocks(page)} >= {"README.md", "training.md"}


def test_api_page_has_every_public_name():
    public = {
        name
        for name, value in vars(npx).items()
        if not name.startswith("_") and not isinstance(value, type(npx))
    }
    documented = DIRECTIVE.findall((ROOT / "docs/api.md").read_text("utf-8"))
    assert sorted(documented) == sorted(public)
