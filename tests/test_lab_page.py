"""The page of all experiments: in both languages, and every picture loads in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from xpnet.lab import all as page
from xpnet.lab.__main__ import EXPERIMENTS

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """A page of two quick experiments."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(page, "EXPERIMENTS", {name: EXPERIMENTS[name] for name in ("zigzag", "line")})
    out = tmp_path / "실험"
    assert page.main(["--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert "2/2 line: " in err.splitlines()[-2]
    assert err.splitlines()[-1] == f"the page is {out / 'index.html'}"
    assert printed.startswith("--- zigzag: ")
    return out


class Reader(HTMLParser):
    """Reads a page: its pictures, its headings' languages, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.images, self.korean, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            assert attributes["alt"]
            self.images.append(attributes["src"])
        elif tag != "meta":
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


def test_in_a_real_browser(shown, tmp_path):
    if BROWSER is None:
        pytest.skip("needs a browser: chromium or google-chrome")
    check = """<script>addEventListener("load", () => {
        document.title = [...document.images].filter(i => i.complete && i.naturalWidth > 100).length; });</script>"""
    text = (shown / "index.html").read_text(encoding="utf-8")
    (shown / "checked.html").write_text(text + check, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (shown / "checked.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"<title>{len(list(shown.glob('*.png')))}</title>" in done.stdout


def test_the_page_needs_a_place(capsys):
    with pytest.raises(SystemExit, match="2"):
        page.main([])
    assert "--out DIR must say where the page is to go" in capsys.readouterr().err


def test_every_experiment_has_words():
    """Both languages, a title, a paragraph; and the names are those of the files."""
    import importlib

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
