"""Sphinx's configuration; scripts/build_docs.sh builds the site."""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # the reference is that of this source tree

from xpnet import __version__

project = "xpnet"
author = "the xpnet developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"xpnet {__version__}"
html_show_copyright = False
html_show_sphinx = False
smartquotes = False  # text in docstrings and pages quotes code

myst_heading_anchors = 3
default_role = "code"  # docstrings write names in single backticks

autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a property that the class's docstring describes is not described twice
# Types of other projects (ndarray, Path) and internal ones (Views) have no page; nothing is downloaded to link to them.
nitpick_ignore_regex = [("py:class", ".*")]


def escape_bars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Escape | in docstrings, which are plain text: reStructuredText takes |x| for a substitution."""
    for k, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            pieces = re.split(r"(`[^`]*`)", line)
            lines[k] = "".join(piece if piece.startswith("`") else piece.replace("|", r"\|") for piece in pieces)


def link_public_name(app: Sphinx, env: object, node: nodes.Element, content: nodes.TextElement) -> nodes.Node | None:
    """Resolve a type of a signature, such as xpnet.core.device.Device, to the public name it is documented under."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target.startswith("xpnet."):
        return None
    name, domain = target.rpartition(".")[2], app.env.domains["py"]
    for public in (f"xpnet.{name}", f"xpnet.nn.{name}"):
        if public != target and public in domain.objects:
            found = domain.resolve_xref(app.env, node["refdoc"], app.builder, "class", public, node, content)
            if found is not None:
                return found
    return None


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("missing-reference", link_public_name)
