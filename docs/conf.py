"""Sphinx settings: pages in Markdown, the API from docstrings, formulas as MathML."""

import re
from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

project = "neuroplastic-optax"
version = release = metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = project
html_show_copyright = False
html_static_path = ["math.css"]
html_css_files = ["math.css"]
html_math_renderer = "mathml"

default_role = "py:obj"
nitpicky = True
# Names of other projects: to look them up would take a network.
nitpick_ignore_regex = [(r"py:.*", r"(jax|jaxlib|numpy|optax|collections|typing)\..*")]
# Aliases of types, which stand for themselves in a signature.
ALIASES = (
    "ArrayLike DTypeLike Diagnostics Mask MaskFn MigratedState ScalarOrSchedule Statistics Target"
)
nitpick_ignore = [("py:class", name) for name in ALIASES.split()]

napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signature has them
python_maximum_signature_line_length = 88


def mathml(formula: str, *, block: bool = False) -> str:
    """A formula as MathML; one that cannot be read is an error and ends the build."""
    formula = re.sub(r"frac(\d)(\d)", r"frac{\1}{\2}", formula)  # docutils reads 12 as one number
    # Bars are operators by default, with space on both sides; in these pages they are fences.
    return tex2mathml(formula, as_block=block).replace(
        '<mo stretchy="false">|</mo>', '<mo stretchy="false" lspace="0" rspace="0">|</mo>'
    )


def visit_math(visitor: Any, node: nodes.math) -> None:
    """Writes a formula in running text."""
    visitor.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(visitor: Any, node: nodes.math_block) -> None:
    """Writes displayed formulas, one below the other where empty lines part them."""
    visitor.body.append(visitor.starttag(node, "div", CLASS="math"))
    for formula in node.astext().strip().split("\n\n"):
        if "&" in formula and r"\begin" not in formula:
            formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
        visitor.body.append(f"<p>{mathml(formula, block=True)}</p>")
    visitor.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """MathML needs neither a script nor a network."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
