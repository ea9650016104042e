"""Compare two runs of one seed on two devices: python scripts/compare_runs.py RUN RUN; exits with 1 if they differ.

Besides the two folders' histories, it trains step by step on both devices, and holds the loss of each step against the
other's: the first 50 to 1e-8 in float64, the first 5 to 1e-5 in float32, relative. After that, rounding takes over, and
the final test accuracies are to agree within 0.4 points.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from xpnet import MLP, Adam, Trainer, get_device, load_digits

BOUNDS = {"float64": (50, 1e-8), "float32": (5, 1e-5)}
ACCURACY_BOUND = 0.004


def losses(device: str, dtype: str, steps: int) -> list[float]:
    """Return the loss of each of the first steps on the bundled digits, of the posts' network."""
    digits = load_digits()
    model = MLP([64, 100, 100, 100, 100, 10], input_scale=16, dtype=dtype, device=get_device(device))
    trainer = Trainer(model, Adam())
    return [trainer.fit(digits.x_train, digits.y_train, steps=1)[-1]["train_loss"] for _ in range(steps)]


def last_row(folder: Path) -> dict[str, Any]:
    """Return the last row of a run's history."""
    row: dict[str, Any] = json.loads((folder / "history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return row


def main(first: str, second: str) -> int:
    """Compare, print a JSON object, and return the exit code."""
    folders = [Path(first), Path(second)]
    devices = [json.loads((f / "config.json").read_text(encoding="utf-8"))["device"] for f in folders]
    report: dict[str, Any] = {"devices": devices}
    passed = True
    for dtype, (steps, bound) in BOUNDS.items():
        here, there = (losses(device, dtype, steps) for device in devices)
        worst = max(abs(a - b) / abs(a) for a, b in zip(here, there, strict=True))
        report[dtype] = {"steps": steps, "worst_relative_difference": worst, "bound": bound}
        passed = passed and worst <= bound
    rows = [last_row(folder) for folder in folders]
    difference = abs(rows[0]["test_accuracy"] - rows[1]["test_accuracy"])
    report["accuracy"] = {"difference": difference, "bound": ACCURACY_BOUND, "last_rows": rows}
    passed = passed and difference <= ACCURACY_BOUND
    print(json.dumps(report | {"passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
