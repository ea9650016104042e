"""python -m xpnet.draw: see `xpnet.commands.draw`."""

import sys

from ..commands.draw import main

if __name__ == "__main__":
    sys.exit(main())
