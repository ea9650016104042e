"""The page of all experiments, in a real browser."""

from __future__ import annotations

import pytest
from browser import opened

from xpnet.lab import all as everything


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "글 index.html"
    path.write_text(everything.page([]), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(browser, path, width):
    with opened(browser, path, viewport={"width": width, "height": 800}) as page:
        assert page.title() == everything.TITLE.english
        assert page.evaluate("document.documentElement.scrollWidth") <= width
