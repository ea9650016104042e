"""python -m xpnet.export: see `xpnet.commands.export`."""

import sys

from .commands.export import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
