"""The witness of a training under mpiexec: a process that says so where its parent is killed.

It is run as a file, and imports nothing of the package: `python witness.py [FOLDER]`.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Wait for the parent's end, and print a line where it said no farewell."""
    if not sys.stdin.buffer.read():
        hint = "with --out DIR it could be gone on with"
        if sys.argv[1:]:
            folder = Path(sys.argv[1])
            whole = any(folder.glob("checkpoint*.safetensors"))
            hint = f"go on with --resume {folder}" if whole else f"there is no checkpoint in {folder} yet"
        print(f"error: a rank was lost, and mpiexec has ended the training; {hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
