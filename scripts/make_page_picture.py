"""Make the picture of the page of the posts: its claims, and, as on a phone in the dark, a part to play with.

usage: make_page_picture.py INDEX.html PICTURE.png
(needs playwright and Chromium: pip install -e ".[test-pages]")
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import chromium, opened  # type: ignore[import-not-found]

HEIGHT = 860
# Width, colours, language, and what is at the top.
VIEWS = (
    (1000, "light", "en-US", "#post-001"),
    (390, "dark", "ko-KR", "#play-zigzag"),
)


def main() -> None:
    """Open the page in each view, and put the pictures side by side."""
    page_path, picture_path = map(Path, sys.argv[1:])
    joined = Image.new("RGB", (sum(view[0] for view in VIEWS), HEIGHT))
    left = 0
    with chromium() as browser:
        for width, colors, locale, anchor in VIEWS:
            window = {"width": width, "height": HEIGHT}
            with opened(browser, page_path, viewport=window, color_scheme=colors, locale=locale) as page:
                page.evaluate("(anchor) => { location.hash = anchor; }", anchor)
                page.wait_for_timeout(500)
                joined.paste(Image.open(io.BytesIO(page.screenshot())), (left, 0))
            left += width
    joined.quantize(256).save(picture_path, optimize=True)


if __name__ == "__main__":
    main()
