"""The page of the posts: their claims with verdicts, the experiments, and parts to play with.

Texts are in both languages, of which the style shows one. Nothing is loaded but the pictures.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from ..experiment import ANSWERS, Claim, Experiment, Lab, Picture, Verdict, Words
from .controls import FORMS, data
from .diagrams import DIAGRAMS, Diagram, heads
from .formulas import NO_BREAK_SPACE, mathml
from .posts import POSTS, Post
from .texts import attribute, both

TITLE = Words("Five posts about training networks, tested", "신경망 학습을 다룬 글 다섯 편, 실험으로 확인하기")
INTRODUCTION = Words(
    "Each claim of the posts is tested by a program that prints its numbers and draws its pictures. The verdicts are"
    " computed from these numbers. Parts to play with are marked; their numbers are computed in this page.",
    "글에 나오는 주장을 하나하나 프로그램으로 확인했다. 판정은 프로그램이 출력한 숫자에 따른다. '직접 해 보기'에서는"
    " 값을 바꾸어 볼 수 있고, 결과는 이 페이지에서 바로 계산된다.",
)
CONTENTS = Words("Contents", "차례")
CLAIMS = Words("The posts and their claims", "글의 주장과 판정")
EXPERIMENTS = Words("Experiments", "실험")
FIGURES = Words("Counterparts of the post's figures:", "글의 그림과 짝을 이루는 것:")
MISSING = Words("What is missing", "싣지 않은 것")
WITHOUT = Words(
    "Figures of the posts that have no counterpart here, and claims that no experiment of this run tests:",
    "글에는 있지만 여기에는 싣지 않은 그림과, 이번 실행에서 확인하지 못한 주장은 다음과 같다.",
)
NUMBERS = Words("All numbers", "모든 수치")
SKIP = Words("Skip to the content", "본문으로 건너뛰기")
NO_BREAK_HYPHEN = "\u2011"
SCRIPTS = ("chart.js", "play.js", "rules.js", "descent.js", "zigzag.js", "minibatch.js", "activations.js", "page.js")

Part = tuple[Experiment, Lab]
Judged = tuple[Experiment, Claim, Verdict]


def make_page(parts: Sequence[Part], seed: int = 0) -> str:
    """Return the page of experiments that were run.

    Args:
        parts: each experiment with the environment in which it ran.
        seed: of the data that the page computes with.
    """
    judged = [(one, claim, verdict) for one, lab in parts for claim, verdict in lab.verdicts if verdict is not None]
    numbers = json.dumps(data(seed), separators=(",", ":")).replace("<", "\\u003c")
    scripts = "".join(f"<script>\n{source(name)}</script>\n" for name in SCRIPTS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(TITLE.english)}</title>
<link rel="icon" href="data:,">
<style>{source("page.css")}</style>
<script>
{source("language.js")}</script>
</head>
<body>
<a class="skip" href="#claims">{both(SKIP)}</a>
{_navigation(parts)}
<header>
<div class="language" role="group" {attribute("aria-label", Words("Language", "언어"))}>
<button type="button" value="ko" lang="ko">한국어</button>
<button type="button" value="en" lang="en">English</button>
</div>
<h1>{both(TITLE)}</h1>
{both(INTRODUCTION, "p")}
</header>
<main>
{heads()}
<section id="claims">
<h2>{both(CLAIMS)}</h2>
{"".join(_post(post, [one for one in judged if one[1].post == post.number]) for post in POSTS)}</section>
{"".join(_section(one, lab) for one, lab in parts)}{_missing(parts)}</main>
<dialog {attribute("aria-label", Words("Picture", "그림"))}>
<form method="dialog"><button>{both(Words("Close", "닫기"))}</button></form><img alt="">
</dialog>
<script type="application/json" id="data">{numbers}</script>
{scripts}</body>
</html>
"""


@cache
def source(name: str) -> str:
    """Return the text of a file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _navigation(parts: Sequence[Part]) -> str:
    posts = "".join(f'<li><a href="#post-{post.number}">{post.number} {both(post.title)}</a></li>' for post in POSTS)
    links = "".join(f'<li><a href="#{one.name}">{both(one.title)}</a></li>' for one, _ in parts)
    return f"""<nav {attribute("aria-label", CONTENTS)}><details open><summary>{both(CONTENTS)}</summary>
<h2>{both(CLAIMS)}</h2><ul>{posts}</ul>
<h2>{both(EXPERIMENTS)}</h2><ul>{links}</ul>
<ul><li><a href="#missing">{both(MISSING)}</a></li></ul></details></nav>"""


def _post(post: Post, judged: Sequence[Judged]) -> str:
    """A post: its claims with verdicts, and its figures with links to their counterparts."""
    head = (
        Words("claim", "주장"),
        Words("verdict", "판정"),
        Words("number", "수치"),
        Words("why", "까닭"),
        Words("experiment", "실험"),
    )
    columns = "".join(f'<th scope="col">{both(words)}</th>' for words in head)
    rows = "".join(
        f"<tr><td>{both(claim.text)}</td>"
        f'<td><span class="answer {verdict.answer}">{both(ANSWERS[verdict.answer])}</span></td>'
        f'<td class="number">{escape(unbroken(verdict.number))}</td><td>{both(_unbroken(verdict.reason))}</td>'
        f'<td><a href="#{one.name}">{both(one.title)}</a></td></tr>\n'
        for one, claim, verdict in judged
    )
    figures = ", ".join(
        f'<a href="#{figure.counterpart}">{both(figure.text)}</a>' for figure in post.figures if figure.counterpart
    )
    return f"""<h3 id="post-{post.number}">{post.number} {both(post.title)}</h3>
<table class="claims"><thead><tr>{columns}</tr></thead><tbody>
{rows}</tbody></table>
<p class="note">{both(FIGURES)} {figures}</p>
"""


def unbroken(text: str) -> str:
    """Text that does not break around "=" or within 1e-06."""
    return re.sub(r"(?<=\de)-", NO_BREAK_HYPHEN, text.replace(" = ", f"{NO_BREAK_SPACE}={NO_BREAK_SPACE}"))


def _unbroken(words: Words) -> Words:
    return Words(unbroken(words.english), unbroken(words.korean))


def _section(one: Experiment, lab: Lab) -> str:
    figures = "".join(_picture(one, picture) for picture in lab.pictures)
    diagrams = "".join(map(_diagram, DIAGRAMS.get(one.name, ())))
    printed = escape("\n".join(lab.lines[1:]).strip())
    command = f"python -m xpnet.lab {one.name}"
    return f"""<section id="{one.name}">
<p class="over"><code>{command}</code></p>
<h2>{both(one.title)}</h2>
{both(one.text, "p")}
{"".join(mathml(line) for line in one.formula)}
{FORMS.get(one.name, "")}{diagrams}{figures}<details><summary>{both(NUMBERS)}</summary>
<pre tabindex="0">{printed}</pre></details>
</section>
"""


def _picture(one: Experiment, picture: Picture) -> str:
    """A picture that can be enlarged, with its size, so that nothing moves when it loads."""
    file, caption = picture.path.name, picture.caption
    width, height = struct.unpack(">II", picture.path.read_bytes()[16:24])  # of PNG's first chunk
    stem = file.removesuffix(".png")
    name = f"{stem}-picture" if stem == one.name else stem
    return (
        f'<figure id="{escape(name)}"><a class="enlarge" href="{escape(file)}"><img src="{escape(file)}" loading="lazy"'
        f' width="{width}" height="{height}"'
        f" {attribute('alt', caption)}></a><figcaption>{both(caption)}</figcaption></figure>\n"
    )


def _diagram(one: Diagram) -> str:
    return (
        f'<figure id="{one.name}"><div class="diagram" tabindex="0">{one.svg()}</div>'
        f"<figcaption>{both(one.caption)}</figcaption></figure>\n"
    )


def _missing(parts: Sequence[Part]) -> str:
    """The figures without a counterpart, and the claims that this run could not test."""
    figures = [(post.number, figure.text) for post in POSTS for figure in post.figures if not figure.counterpart]
    untested = [(claim.post, claim.text) for _, lab in parts for claim, verdict in lab.verdicts if verdict is None]
    items = "".join(f"<li>{number}: {both(words)}</li>" for number, words in (*figures, *untested))
    return f"""<section id="missing">
<h2>{both(MISSING)}</h2>
<p>{both(WITHOUT)}</p>
<ul>{items}</ul>
</section>
"""
