#!/usr/bin/env bash
# Make the README's pictures: docs/*.png. Needs MNIST (in XPNET_DATA_DIR, or to be downloaded) and matplotlib; minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for name in zigzag vanishing race; do
    "$python" -m xpnet.lab "$name" --out "$made"
done
cp "$made/zigzag.png" "$made/vanishing-training.png" "$made/race-best.png" docs/
