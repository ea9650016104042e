"""Formulas as MathML, from lines of Unicode such as "x ← x − η ∇f(x)"."""

from __future__ import annotations

import re
import unicodedata
from html import escape

TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?)|(?P<words> ?(?:[^\W\d_]{3,}|[A-Z][A-Za-z]+|in\b)(?: [^\W\d_]{2,})* ?)"
    r"|(?P<name>[^\W\d_]\u0302?)|(?P<space>\s+)|(?P<sign>.)"
)


def mathml(line: str) -> str:
    """Return a formula as a paragraph of MathML, which breaks where the line has two spaces or more."""
    parts = "\n".join(f"<math>{_row(part)}</math>" for part in re.split(r"\s{2,}", line))
    return f'<p class="formula">{parts}</p>'


def _row(line: str) -> str:
    """MathML of a line, with superscript and subscript letters as scripts, and roots over a letter or a number."""
    items: list[str] = []
    for script, text in _scripts(line):
        found = [item for token in TOKEN.finditer(text) if (item := _item(token))]
        if script and items:
            items.append(f"<{script}>{items.pop()}<mrow>{''.join(found)}</mrow></{script}>")
            continue
        for item in found:
            root = items and items[-1] == ROOT and item != "<mo>(</mo>"
            items.append(f"<msqrt>{item}</msqrt>" if root and items.pop() else item)
    return "".join(items)


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


ROOT = "<mo>√</mo>"


def _item(token: re.Match[str]) -> str:
    text = escape(token.group().replace("-", "−"))
    if token.lastgroup == "number":
        return f"<mn>{text}</mn>"
    if token.lastgroup == "words":
        return f"<mtext>{text.replace(' ', NO_BREAK_SPACE)}</mtext>"
    if token.lastgroup == "name":
        hat = "\u0302" in unicodedata.normalize("NFD", text)  # then browsers do not slant the letter by themselves
        return f'<mi class="hat">{text}</mi>' if hat else f"<mi>{text}</mi>"
    return "" if token.lastgroup == "space" else f"<mo>{text}</mo>"


NO_BREAK_SPACE = "\u00a0"  # MathML drops others at both ends of a text
