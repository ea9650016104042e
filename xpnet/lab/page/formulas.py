"""Formulas as MathML, from lines of Unicode such as "x ← x − η ∇f(x)"."""

from __future__ import annotations

import re
import unicodedata
from html import escape

TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)|(?P<words>[^\W\d_]{2,}(?: [^\W\d_]+)*)|(?P<name>[^\W\d_]\u0302?)"
    r"|(?P<space>\s+)|(?P<sign>.)"
)


def mathml(line: str) -> str:
    """Return a formula as a paragraph of MathML, with superscript and subscript letters as scripts."""
    items: list[str] = []
    for script, text in _scripts(line):
        inside = "".join(filter(None, (_item(token) for token in TOKEN.finditer(text))))
        if script and items:
            items.append(f"<{script}>{items.pop()}<mrow>{inside}</mrow></{script}>")
        else:
            items += filter(None, (_item(token) for token in TOKEN.finditer(text)))
    return f'<p class="formula"><math>{"".join(items)}</math></p>'


def _scripts(line: str) -> list[tuple[str, str]]:
    """Pieces of a line as (msup, msub or nothing; text), with scripts as plain letters: x² is x and a raised 2."""
    pieces: list[tuple[str, str]] = []
    for letter in line:
        kind, _, plain = unicodedata.decomposition(letter).partition(" ")
        script = {"<super>": "msup", "<sub>": "msub"}.get(kind, "")
        text = chr(int(plain, 16)) if script else letter
        if pieces and pieces[-1][0] == script:
            pieces[-1] = (script, pieces[-1][1] + text)
        else:
            pieces.append((script, text))
    return pieces


def _item(token: re.Match[str]) -> str:
    text = escape(token.group().replace("-", "−"))
    if token.lastgroup == "number":
        return f"<mn>{text}</mn>"
    if token.lastgroup == "words":
        return f"<mtext>{text}</mtext>"
    if token.lastgroup == "name":
        return f"<mi>{text}</mi>"
    if token.lastgroup == "space":
        return '<mspace width="0.6em"/>' if len(text) > 1 else ""
    return f"<mo>{text}</mo>"
