"""python -m xpnet, and the script `xpnet`: list the commands, and run one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .commands import cli

COMMANDS = {
    "train": "train a multilayer perceptron, and say how well it does",
    "predict": "predict pictures or arrays with a trained model",
    "draw": "write a page to draw on, with a trained model inside",
    "runs": "compare runs, in a table and a picture",
    "explain": "show which columns a trained model depends on",
    "export": "write a trained model as an ONNX file",
    "search": "train many networks at once, and find the best options",
    "lab": "experiments: the best learning rate, ...",
    "doctor": "show what this machine has for training, and what to do about what it lacks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` begin with, or list the commands; return the exit code."""
    modules = {name: f"xpnet.{name}" for name in COMMANDS} | {
        "draw": "xpnet.commands.draw",
        "search": "xpnet.commands.search",
        "lab": "xpnet.lab.__main__",
    }
    return cli.dispatch("xpnet", "COMMAND", COMMANDS, modules, arguments)


if __name__ == "__main__":
    sys.exit(main())
