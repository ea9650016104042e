"""The page of all experiments: in both languages, and every picture loads in a real browser."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from browser import opened

from xpnet.lab import all as page
from xpnet.lab.__main__ import EXPERIMENTS
from xpnet.lab.page.diagrams import DIAGRAMS
from xpnet.lab.page.formulas import mathml
from xpnet.lab.page.posts import POSTS


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A page of two quick experiments."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("page") / "실험"
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as numbers,
        redirect_stderr(StringIO()) as err,
    ):
        patch.setattr(page, "EXPERIMENTS", {name: EXPERIMENTS[name] for name in ("zigzag", "line")})
        assert page.main(["--out", str(out)]) == 0
    *_, progress, last = err.getvalue().splitlines()
    assert "2/2 line: " in progress
    assert last == f"the page is {out / 'index.html'}"
    assert numbers.getvalue().startswith("--- zigzag: ")
    return out


class Reader(HTMLParser):
    """Reads a page: its pictures, its headings' languages, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.images, self.korean, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            if "src" in attributes:  # that of the dialog gets its picture later
                assert attributes["alt"]
                self.images.append(attributes["src"])
        elif tag not in ("meta", "link", "input"):
            self.open.append((tag, attributes.get("lang")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        if self.open and self.open[-1][1] == "ko":
            self.korean.append(text)


def test_the_page(shown):
    reader = Reader()
    reader.feed((shown / "index.html").read_text(encoding="utf-8"))
    assert reader.open == []
    assert "zigzag.png" in reader.images
    assert all((shown / name).is_file() for name in reader.images)
    assert len(reader.images) == len(list(shown.glob("*.png")))
    for text in reader.korean:
        assert any("가" <= letter <= "힣" for letter in text), text


def test_in_a_real_browser(browser, shown):
    """Every picture loads, and every link within the page leads somewhere."""
    with opened(browser, shown / "index.html") as page:
        for picture in page.locator("figure img").all():
            picture.scroll_into_view_if_needed()
            picture.evaluate("picture => picture.decode()")
            assert picture.evaluate("picture => picture.naturalWidth") > 100
        for target in page.eval_on_selector_all("#zigzag a[href^='#'], nav a", "links => links.map(a => a.hash)"):
            assert page.locator(target).count() == 1, target


def test_counterparts_exist():
    """Each figure of a post leads to a section, to a diagram, or to a picture that some experiment draws."""
    drawn = set()
    for name in EXPERIMENTS:
        source = Path(importlib.import_module(f"xpnet.lab.{name}").__file__).read_text(encoding="utf-8")
        drawn |= {*re.findall(r'draw\(\s*"([\w-]+)"', source)}
    pictures = {f"{name}-picture" if name in EXPERIMENTS else name for name in drawn}
    diagrams = {one.name for some in DIAGRAMS.values() for one in some}
    anchors = {figure.counterpart for post in POSTS for figure in post.figures} - {""}
    assert anchors <= {*EXPERIMENTS, *pictures, *diagrams}, anchors - {*EXPERIMENTS, *pictures, *diagrams}


def test_formulas():
    """Scripts, roots, hats and words; a formula breaks where it has two spaces."""
    assert mathml("w₁²") == (
        '<p class="formula"><math><msup><msub><mi>w</mi><mrow><mn>1</mn></mrow></msub><mrow><mn>2</mn></mrow></msup>'
        "</math></p>"
    )
    assert "<msqrt><mi>h</mi></msqrt>" in mathml("g / √h")
    assert '<msqrt><mi class="hat">ĥ</mi></msqrt>' in mathml("√ĥ")
    assert "<mtext>\u00a0mean\u00a0of\u00a0</mtext><mi>x</mi>" in mathml("= mean of x")
    assert "<mtext>NAND</mtext><mo>,</mo><mtext>\u00a0OR</mtext><mo>(</mo>" in mathml("NAND, OR(x)")
    assert (
        mathml("He: √2") == '<p class="formula"><math><mtext>He</mtext><mo>:</mo><msqrt><mn>2</mn></msqrt></math></p>'
    )
    assert "<mo>√</mo><mo>(</mo><mi>x</mi>" in mathml("√(x + ε)")
    assert mathml("a = b,  c = d").count("<math>") == 2


def test_the_page_needs_a_place(capsys):
    with pytest.raises(SystemExit, match="2"):
        page.main([])
    assert "--out DIR must say where the page is to go" in capsys.readouterr().err


def test_every_experiment_has_words():
    """Both languages, a title, a paragraph; and the names are those of the files."""
    for name in EXPERIMENTS:
        one = importlib.import_module(f"xpnet.lab.{name}").EXPERIMENT
        assert one.name == name
        for words in (one.title, one.text):
            assert any("가" <= letter <= "힣" for letter in words.korean)
            assert words.english.isprintable()
        assert 200 < len(one.text.english) < 1200, name


def test_what_is_wrong_is_found_before_any_work(capsys, tmp_path, monkeypatch):
    """A seed that is none, a folder that cannot be, and pictures without matplotlib."""
    from xpnet.lab import line

    with pytest.raises(SystemExit, match="2"):
        line.main(["--seed", "-1"])
    assert "seed must be at least 0, not -1" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert line.main(["--out", str(tmp_path / "file")]) == 2
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert line.main(["--out", str(tmp_path / "o")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "pictures need matplotlib" in err.splitlines()[-1]
