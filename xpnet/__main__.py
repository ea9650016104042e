"""python -m xpnet, and the script `xpnet`: what commands there are, and a way to run each."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from . import __version__, cli
from .errors import did_you_mean

COMMANDS = {
    "train": "train a multilayer perceptron, and say how well it does",
    "predict": "label pictures or arrays with a trained model",
    "doctor": "show what this machine has for training, and what to do about what it lacks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` begin with, or list the commands; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in COMMANDS:
        code: int = importlib.import_module(f"xpnet.{words[0]}").main(words[1:])
        return code
    return cli.run(_list, words)


def _list(words: Sequence[str] | None) -> int:
    if not words or words[0] in ("-h", "--help"):
        print("usage: python -m xpnet COMMAND [OPTION ...]      (or: xpnet COMMAND ..., python -m xpnet.COMMAND ...)\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:<9} {purpose}")
        print("\npython -m xpnet COMMAND --help lists a command's options.")
    elif words[0] == "--version":
        print(f"xpnet {__version__}")
    else:
        raise cli.UsageError(f"unknown command {words[0]!r}: {did_you_mean(words[0], COMMANDS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
