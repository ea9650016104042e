"""python -m xpnet.runs: see `xpnet.commands.runs`."""

import sys

from .commands.runs import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
