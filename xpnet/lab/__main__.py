"""python -m xpnet.lab: what experiments there are, and a way to run each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import cli

EXPERIMENTS = {
    "zigzag": "why plain descent wastes steps in a long valley, and what other rules do about it",
    "rates": "which learning rates work: many at once, and a picture of what came of each",
    "search": "grid and random search over rate, decay, dropout, depth, width and batch size",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment that `arguments` begin with, or list them; return the exit code."""
    modules = {name: f"xpnet.lab.{name}" for name in EXPERIMENTS}
    return cli.dispatch("xpnet.lab", "NAME", EXPERIMENTS, modules, arguments)


if __name__ == "__main__":
    sys.exit(main())
