"""Make docs/draw.png: a three drawn on the page of a run.

    python -m xpnet.train --dataset mnist --out runs/mnist
    python scripts/make_draw_picture.py runs/mnist docs/draw.png

Needs playwright and Chromium (the extra test-pages), and Pillow.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from browser import chromium, opened  # type: ignore[import-not-found]
from strokes import DIGITS, draw  # type: ignore[import-not-found]

from xpnet.commands import draw as command

WINDOW = {"width": 1200, "height": 1165}
COLOURS = 160  # of the picture: flat areas, and two colours in all strengths


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run on MNIST")
    parser.add_argument("out", type=Path, help="file of the picture")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "digits.html"
        command.main([str(options.run), "--out", str(path)])
        with opened(browser, path, locale="en-US", color_scheme="light", viewport=WINDOW) as page:
            draw(page, DIGITS["3"])
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(300)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
