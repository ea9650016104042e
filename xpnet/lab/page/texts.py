"""HTML of texts in two languages: both are in the page, and its style shows one."""

from __future__ import annotations

from html import escape

from ..experiment import Words


def both(words: Words, tag: str = "span") -> str:
    """Both languages, each in an element of its own; a text that they share stands alone."""
    if words.english == words.korean:
        return escape(words.english)
    return f'<{tag} lang="en">{escape(words.english)}</{tag}><{tag} lang="ko">{escape(words.korean)}</{tag}>'


def attribute(name: str, words: Words) -> str:
    """An attribute in English, which the page's script keeps in the reader's language."""
    english, korean = escape(words.english), escape(words.korean)
    return f'{name}="{english}" data-for="{name}" data-en="{english}" data-ko="{korean}"'
