"""python -m xpnet.explain: see `xpnet.commands.explain`."""

import sys

from .commands.explain import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
