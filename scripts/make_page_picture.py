"""Make the picture of the page of the posts: its claims, and, as on a phone in the dark, a part to play with.

usage: make_page_picture.py INDEX.html PICTURE.png
(needs playwright and Chromium: pip install -e ".[test-pages]")
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

HEIGHT = 860
# Width, colours, language, and what is at the top.
VIEWS: tuple[tuple[int, Literal["light", "dark"], str, str], ...] = (
    (1000, "light", "en-US", "#post-001"),
    (390, "dark", "ko-KR", "#play-zigzag"),
)


def main() -> None:
    """Open the page in each view, and put the pictures side by side."""
    page_path, picture_path = map(Path, sys.argv[1:])
    program = shutil.which("chromium") or shutil.which("google-chrome")
    joined = Image.new("RGB", (sum(view[0] for view in VIEWS), HEIGHT))
    left = 0
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width, colors, locale, anchor in VIEWS:
            page = browser.new_page(
                viewport={"width": width, "height": HEIGHT}, color_scheme=colors, locale=locale, offline=True
            )
            page.goto(page_path.resolve().as_uri() + anchor)
            page.wait_for_timeout(500)
            joined.paste(Image.open(io.BytesIO(page.screenshot())), (left, 0))
            left += width
        browser.close()
    joined.quantize(256).save(picture_path, optimize=True)


if __name__ == "__main__":
    main()
