"""python -m xpnet.search: see `xpnet.commands.search`."""

import sys

from ..commands.search import main

if __name__ == "__main__":
    sys.exit(main())
