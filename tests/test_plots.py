"""Text in pictures: names of classes are drawn as they are, and what no font has is escaped."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

font_manager = pytest.importorskip("matplotlib.font_manager")

from xpnet import plots  # noqa: E402 (needs matplotlib)

PIXELS = np.zeros((8, 8))
NAMES = (
    "$x^2",
    "$\\frac{$",
    "50 % \\frac{",
    "a_b^c $5$",
    "고양이",
    "\x1b[31mred",
    "a\tb\nc",
    "\ud800",
    "👩\u200d🔬",
    "",
)


@pytest.fixture
def fonts(monkeypatch):
    """The fonts of this test alone, without Korean ones."""

    def forget():
        plots.korean_font.cache_clear()
        plots.letters.cache_clear()

    others = [font for font in font_manager.fontManager.ttflist if font.name not in plots.HANGUL]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)
    forget()
    yield font_manager.fontManager
    forget()


@pytest.fixture
def korean_font(fonts, tmp_path):
    """A font of three letters that is called like one with Korean letters."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    of_letters = {ord(letter): f"letter{i}" for i, letter in enumerate("고양이")}
    names = [".notdef", *of_letters.values()]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(of_letters)
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": plots.HANGUL[0], "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "korean.ttf")
    fonts.addfont(tmp_path / "korean.ttf")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_class_can_be_drawn(name):
    """Neither an error of the parser of formulas, nor a warning for each letter that no font has."""
    drawn = plots.draw_mistakes([(PIXELS, f"row 0: {name}", f"taken for {name}")], 1, 2)
    assert drawn.startswith(b"\x89PNG")


def test_a_dollar_sign_is_drawn(fonts):
    pictures = [plots.draw_mistakes([(PIXELS, name, "")], 1, 2) for name in ("$x$", "x", "$x$ ")]
    assert pictures[0] != pictures[1]


def test_letters_that_no_font_has_are_escaped(fonts, monkeypatch):
    monkeypatch.setattr(plots, "HANGUL", ("none",))
    assert plots.drawable("$é 고\x1b\n") == "$é \\uace0\\x1b\\n"


def test_names_are_drawn_in_the_font_of_headings(korean_font):
    assert plots.families() == ["DejaVu Sans", plots.HANGUL[0]]
    assert plots.drawable("고양이 a 가") == "고양이 a \\uac00"
    one, other = (plots.draw_mistakes([(PIXELS, name, "")], 1, 2) for name in ("고양이", "\\uace0\\uc591\\uc774"))
    assert one != other


def test_a_font_installed_since_matplotlib_listed_them_is_found(korean_font, monkeypatch, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    found = [str(tmp_path / "broken.ttf"), str(tmp_path / "korean.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    listed = [font for font in font_manager.fontManager.ttflist if font.name not in plots.HANGUL]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    plots.korean_font.cache_clear()
    assert plots.korean_font() == plots.HANGUL[0]


def test_long_names_of_pictures_do_not_overlap(monkeypatch):
    monkeypatch.setattr(plots, "png", lambda figure: figure)
    picture, digit = np.zeros((30, 40, 3), np.uint8), np.zeros((28, 28))
    names = ["IMG_20261130_" * 20, "\uc0ac\uc9c4 " * 40, "$a_1$.png"]
    figure = plots.draw_seen([(picture, digit, name, f"{name} (12.3%)") for name in names])
    figure.draw_without_rendering()
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes[:6]]
    assert all(one.x1 < other.x0 for one, other in pairwise(labels))
    assert figure.axes[4].get_xlabel() == names[2]
    tops = {round(axes.get_window_extent().y1) for axes in figure.axes[:6]}
    assert len(tops) == 1, "titles are in one line"
