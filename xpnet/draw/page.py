"""The page: HTML, CSS and JavaScript of this folder, and a model and examples as JSON, in one text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from ..model import MLP
from ..model.pictures import white_level
from .content import Examples, examples_content, network_content

SCRIPTS = ("words.js", "network.js", "prepare.js", "pad.js", "view.js", "main.js")
FOLDER = Path(__file__).parent


def drawing_page(model: MLP, examples: Examples | None = None, white: float | None = None) -> str:
    """Make a page, HTML, on which a model reads what is drawn.

    The page makes no requests: its policy allows its own style and script alone.

    Args:
        model: a single model of square pictures.
        examples: pictures of a test set to choose among, from `choose_examples`.
        white: value of full ink in the units of the training data; by default the model's scale, or 255.

    Raises:
        ValueError: the page cannot hold the model; the message says why.
    """
    content = {"network": network_content(model, white_level(model) if white is None else white)}
    if examples is not None:
        content |= examples_content(examples)
    style, script = _text("page.css"), "\n".join(map(_text, SCRIPTS))
    parts = {
        "policy": f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}",
        "style": style,
        "content": json.dumps(content).replace("<", "\\u003c"),  # a name such as </script> ends no element
        "script": script,
    }
    return re.sub("<!-- (policy|style|content|script) -->", lambda found: parts[found[1]], _text("page.html"))


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """Name of a text in a content security policy, by its digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
