"""Sphinx settings: Markdown pages, the API from docstrings, formulas as MathML."""

from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from jax.typing import ArrayLike, DTypeLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

from neuroplastic_optax._plasticity import ScalarOrSchedule

project = "neuroplastic-optax"
author = "The neuroplastic-optax authors"
version = release = metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["toc.empty_glob"]  # a clone may hold no results yet

html_theme = "furo"
html_title = project

default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(jax|jnp|numpy|np|optax|flax)\..*")]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100


def render_math(visitor: Any, node: nodes.math) -> None:
    """Writes a formula in running text."""
    visitor.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def render_displayed_math(visitor: Any, node: nodes.math_block) -> None:
    """Writes displayed formulas, one below the other where empty lines part them."""
    visitor.body.append(visitor.starttag(node, "div", CLASS="math"))
    for formula in node.astext().strip().split("\n\n"):
        if "\\\\" in formula or "&" in formula:
            formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
        visitor.body.append(f"<p>{tex2mathml(formula, as_block=True)}</p>")
    visitor.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas need no script and no network: browsers render MathML themselves."""
    app.add_html_math_renderer("mathml", (render_math, None), (render_displayed_math, None))
html_math_renderer = "mathml"
