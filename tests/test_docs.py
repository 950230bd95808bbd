"""The documentation is true: its code runs, and its API page has every public name."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import pandas as pd
import pytest

import neuroplastic_optax as npx
from benchmarks import step_size

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^\.\. (\w+):: ([\w.]+)$", re.MULTILINE)
MODULES = ("masks", "monitoring", "schedules", "variants")
TITLED = re.compile(r"^(?P<title>.+) <(?P<page>[\w/-]+)>$", re.MULTILINE)  # in a toctree
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
INCLUDE = re.compile(r"```\{include\} (\S+)\n(?::.*\n)*```")


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
    with_code = {page.name for page in PAGES if blocks(page)}
    assert with_code >= {"README.md", "coming_from.md", "training.md"}


def test_api_page_has_every_public_name_once():
    modules = [npx, *(getattr(npx, name) for name in MODULES)]
    public = {
        value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and (module is npx or value.__module__ == module.__name__)
    }
    documented = []
    for directive, name in DIRECTIVE.findall((DOCS / "api.md").read_text("utf-8")):
        if directive in ("module", "currentmodule"):
            module = importlib.import_module(name)
        elif directive != "autodata":
            documented.append(getattr(module, name))
    assert len(documented) == len(set(documented))
    assert set(documented) >= public


@pytest.mark.usefixtures("fully_optimized")
def test_page_on_step_sizes_shows_what_is_measured():
    assert step_size.MARKERS.findall(step_size.PAGE.read_text("utf-8")) == [step_size.table()]


def text_of(page):
    """A page with what it includes."""
    return INCLUDE.sub(
        lambda found: (page.parent / found[1]).read_text("utf-8"), page.read_text("utf-8")
    )


def test_no_two_pages_of_the_menu_have_one_title():
    titled = {found["page"]: found["title"] for found in TITLED.finditer(INDEX.read_text("utf-8"))}
    pages = {page.relative_to(DOCS).with_suffix("").as_posix(): page for page in DOCS.rglob("*.md")}
    assert titled.keys() <= pages.keys()
    titles = [titled.get(name) or HEADING.search(text_of(page))[1] for name, page in pages.items()]
    assert len(titles) == len(set(titles)), sorted(titles)


def comparisons_with_full(study):
    comparisons = pd.read_csv(DOCS / "results" / study / "comparisons.csv")
    return comparisons[comparisons["treatment"] == "full"].set_index("control")


@pytest.mark.parametrize(
    ("study", "rival"), [("verdict-fashion_mnist", "adam"), ("verdict-mnist", "momentum")]
)
def test_first_page_says_of_the_published_method_what_the_fair_test_found(study, rival):
    verdict = comparisons_with_full(study)["verdict"]
    assert verdict[rival] == "worse"
    assert verdict["norm_matched"] == "no difference of practical size"
