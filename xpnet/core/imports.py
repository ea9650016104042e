"""Ctrl-C while the modules of a command are imported: one line, until `commands.cli.run` has its own.

`import xpnet` takes most of a command's start, and imports this module before all others; so it imports next to nothing
itself. Other programs that import xpnet are left alone.
"""

import os
import signal
import sys


def exit_interrupted(number: int, frame: object) -> None:
    """End the process in one line: a handler of Ctrl-C.

    An exception would pass through modules of other projects, some of which take it for a failed import.
    """
    if "PMI_RANK" in os.environ or "PMIX_RANK" in os.environ:  # to mpiexec, an exit is no reason to end the others
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(130)


def _is_command() -> bool:
    """Whether this process is `python -m xpnet...`, or the script `xpnet`."""
    program, words = "".join(sys.argv[:1]), sys.orig_argv
    if program == "-m" and "-m" in words[:-1]:  # Python is still looking for the module
        return words[words.index("-m") + 1].partition(".")[0] == "xpnet"
    return os.path.splitext(os.path.basename(program))[0] == "xpnet"  # noqa: PTH119, PTH122


IS_COMMAND = _is_command()  # later, sys.argv has a path in place of -m

if IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, exit_interrupted)
