"""A headless Chromium that opens pages from files, as readers do, for tests of pages."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def chromium():
    """Start the browser, with nothing of it on the network; skips where it, or what drives it, is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if PROGRAM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-component-update", "--disable-sync"]
        browser = driver.chromium.launch(executable_path=PROGRAM, args=quiet)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, path, **options):
    """Open a page from a file, in a context of its own (`viewport`, `color_scheme`, `locale`, `has_touch`, ...).

    At its end, fails if the page wrote an error to the console, raised one, or asked for anything but its own file.
    """
    context = browser.new_context(offline=True, **options)
    page = context.new_page()
    faults = []
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = ("file:", "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or faults.append(request.url))
    try:
        page.goto(path.resolve().as_uri())
        yield page
        assert not faults, faults
    finally:
        context.close()
