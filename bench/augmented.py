"""How right a perceptron can be on MNIST, with distorted training pictures: a recipe over several seeds.

    python bench/augmented.py [--seeds 0 1 2 3 4] [--runs DIR] [--json FILE] [--plain | -- OPTIONS OF TRAIN]

Each seed of each recipe is a run of `python -m xpnet.train` on all 60,000 training rows, in a folder of its own in
--runs. Started again, it goes on where it was stopped, within a seed too. Nothing is chosen by the test rows: a run's
accuracy is that of its last epoch. --plain trains without distortions; options after -- are in place of the recipe's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from surroundings import in_words, noted, surroundings, write_results

RECIPE = "--dataset mnist --hidden 1000 500 --batch-norm --batch-size 256 --schedule one-cycle --lr 0.01 --epochs 100"


def trained(folder: Path, options: list[str]) -> dict[str, Any]:
    """Return the result of the run in a folder, which is begun, or gone on with, unless it has ended."""
    result = folder / "result.json"
    if not result.exists():
        begun = (folder / "checkpoint.safetensors").exists()
        words = ["--resume", str(folder)] if begun else [*options, "--out", str(folder), "--overwrite"]
        subprocess.run([sys.executable, "-m", "xpnet.train", *words], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean, deviation and range of the test accuracies, and the median of the seconds."""
    scores = [one["test_accuracy"] for one in results]
    return {
        "mean": statistics.mean(scores),
        "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "lowest": min(scores),
        "highest": max(scores),
        "seconds": statistics.median(one["seconds"] for one in results),
        "total_seconds": statistics.median(one["total_seconds"] for one in results),
    }


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--runs", type=Path, default=Path("runs/augmented"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plain", action="store_true", help="without distortions")
    parser.add_argument("options", nargs="*", help="of train, in place of the recipe's")
    given = parser.parse_args()
    if given.plain and given.options:
        parser.error("--plain is the recipe without distortions: no other options can be given")
    options = given.options or [*shlex.split(RECIPE), *([] if given.plain else ["--augment"])]
    recipe = f"{zlib.crc32(shlex.join(options).encode()):08x}"  # other options are another recipe
    around, results = surroundings(), []
    for seed in given.seeds:
        result = trained(given.runs / f"{recipe}-seed-{seed}", [*options, "--seed", str(seed)])
        results.append({name: value for name, value in result.items() if name != "model"})
        found = summary(results)
        print(
            f"seed {seed}: {result['test_accuracy']:.4f} in {result['seconds']:.0f} s of steps; so far"
            f" {found['mean']:.4f} +- {found['deviation']:.4f} ({found['lowest']:.4f} to {found['highest']:.4f})",
            flush=True,
        )
        if given.json:
            content = {"options": shlex.join(options), "summary": found, "seeds": results}
            write_results(given.json, around, content)
    print(in_words(noted(around)))


if __name__ == "__main__":
    main()
