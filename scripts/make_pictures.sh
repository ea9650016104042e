#!/usr/bin/env bash
# Make the pictures of the README and the pages: docs/*.png. Needs MNIST (in XPNET_DATA_DIR, or to be downloaded) and
# matplotlib, and for those of pages Chromium and playwright; takes minutes. scripts/make_speed_chart.py makes
# docs/*.svg.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$python" -m xpnet.lab all --out "$made"
"$python" scripts/make_page_picture.py "$made/index.html" docs/posts-page.png
cp "$made/zigzag.png" "$made/vanishing-training.png" "$made/race-best.png" docs/
"$python" -m xpnet.lab race --seeds 20 --lang both --out "$made"
cp "$made/race-seeds.png" docs/
"$python" -m xpnet.train --dataset mnist --out "$made/mnist"
"$python" scripts/make_draw_picture.py "$made/mnist" docs/draw.png
"$python" -m xpnet.train --hidden 100 100 100 --lr 0.02 --epochs 20 --watch --quiet --out "$made/run"
cp "$made/run/watch.png" docs/
"$python" -m xpnet.train --dataset mnist --augment --preview docs/augmented.png
"$python" -m xpnet.train --threads 1 --plan --times --out "$made/times" >/dev/null
cp "$made/times/roofline.png" docs/
