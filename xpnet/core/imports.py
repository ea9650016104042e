"""Ctrl-C while the modules of a command are imported: one line, until `commands.cli.run` has its own.

`import xpnet` takes most of a command's start, and imports this module before all others. Other programs that import
xpnet are left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn


def exit_interrupted(number: int, frame: object) -> NoReturn:
    """End the process in one line: a handler of Ctrl-C.

    An exception would pass through modules of other projects, some of which take it for a failed import.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process is `python -m xpnet...`, or the script `xpnet`."""
    program, words = Path(sys.argv[0] if sys.argv else "").stem, sys.orig_argv
    if program == "-m" and "-m" in words[:-1]:  # Python is still looking for the module
        program = words[words.index("-m") + 1]
    return program.split(".")[0] == "xpnet"


if (
    _is_command()
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, exit_interrupted)
