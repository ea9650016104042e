"""python -m xpnet.lab all: every experiment, and a page of their results, in English and Korean."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from html import escape

from ..commands import cli
from ..core.files import write_atomically
from . import experiment
from .__main__ import EXPERIMENTS
from .experiment import Experiment, Lab, Words

STYLE = """
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5; color: #222;
       font-family: system-ui, "Noto Sans KR", "Malgun Gothic", "Apple SD Gothic Neo", NanumGothic, sans-serif; }
h1 small, h2 small { display: block; font-size: 0.7em; font-weight: normal; color: #555; }
section { border-top: 1px solid #ccc; margin-top: 2.5rem; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; }
pre { overflow-x: auto; background: #f5f5f5; padding: 0.8rem; font-size: 0.85rem; line-height: 1.3; }
nav li { display: inline-block; margin-right: 1.2rem; }
nav ul { padding: 0; }
"""
TITLE = Words("The lab: five posts about training networks, run", "실험실: 신경망 학습에 관한 다섯 글을 실행하다")
INTRODUCTION = Words(
    "Each part is a program: python -m xpnet.lab NAME --out DIR prints its numbers and draws its pictures.",
    "각 부분은 하나의 프로그램이다. python -m xpnet.lab NAME --out DIR을 실행하면 숫자를 출력하고 그림을 그린다.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every experiment with `arguments` (by default those of the process); return the exit code."""
    return cli.run(_main, arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = cli.Parser("lab.all", description="Run every experiment, and write a page that shows them: index.html.")
    experiment.add_common_options(parser, language="both")
    options = parser.parse_args(arguments)
    if options.out is None:
        parser.error("--out DIR must say where the page is to go")
    parts, started = [], time.perf_counter()
    for number, name in enumerate(EXPERIMENTS, 1):
        one: Experiment = importlib.import_module(f"xpnet.lab.{name}").EXPERIMENT
        begun = time.perf_counter()
        lab = run(one, options)
        parts.append((one, lab))
        seconds, total = time.perf_counter() - begun, time.perf_counter() - started
        lab.progress(f"{number}/{len(EXPERIMENTS)} {name}: {seconds:.0f} s, {total:.0f} s in all")
    path = options.out / "index.html"
    write_atomically(path, page(parts))
    cli.tell(f"the page is {path}")
    return 0


def run(one: Experiment, options: argparse.Namespace) -> Lab:
    """Run an experiment with its own default options, and those that all have in common."""
    own = experiment.parser(one).parse_args([])
    lab = experiment.open_lab(argparse.Namespace(**(vars(own) | vars(options))))
    lab.say(f"--- {one.name}: {one.title.english}")
    experiment.conduct(one, lab)
    lab.say()
    return lab


def page(parts: Sequence[tuple[Experiment, Lab]]) -> str:
    """Make a page of HTML of experiments: their paragraphs, pictures, and printed lines."""
    links = "".join(f'<li><a href="#{one.name}">{escape(one.title.english)}</a></li>\n' for one, _ in parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(TITLE.english)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_both(TITLE, "small")}</h1>
{_paragraphs(INTRODUCTION)}
<nav><ul>
{links}</ul></nav>
{"".join(_section(one, lab) for one, lab in parts)}</body>
</html>
"""


def _section(one: Experiment, lab: Lab) -> str:
    figures = "".join(
        f'<figure><img src="{escape(picture.path.name)}" alt="{escape(picture.caption.english)}">'
        f"<figcaption>{_both(picture.caption, 'span')}</figcaption></figure>\n"
        for picture in lab.pictures
    )
    printed = escape("\n".join(lab.lines[1:]).strip())
    return f"""<section id="{one.name}">
<h2>{_both(one.title, "small")}</h2>
{_paragraphs(one.text)}
{figures}<details><summary>python -m xpnet.lab {one.name}</summary><pre>{printed}</pre></details>
</section>
"""


def _both(words: Words, tag: str) -> str:
    return f'{escape(words.english)} <{tag} lang="ko">{escape(words.korean)}</{tag}>'


def _paragraphs(words: Words) -> str:
    return f'<p>{escape(words.english)}</p>\n<p lang="ko">{escape(words.korean)}</p>'


if __name__ == "__main__":
    sys.exit(main())
