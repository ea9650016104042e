"""python -m xpnet.doctor: see `xpnet.commands.doctor`."""

import sys

from .commands.doctor import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
