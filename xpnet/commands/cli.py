"""Common parts of the commands: one-line errors, exit codes, the fall-back to the CPU, and numbers as people type them.

Exit codes: 0; 1 where the run failed (diverged, disk, memory); 2 for arguments, data, model files and devices; 130
after Ctrl-C, and 143 (129) after a request to terminate (a terminal that is gone).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO
from unicodedata import combining, east_asian_width

from .. import __version__
from ..core.device import CPU, Device, get_device
from ..core.errors import (
    DataError,
    DeviceError,
    DeviceMemoryError,
    DeviceUnavailable,
    DivergedError,
    ExecutorError,
    ModelFileError,
    NetworkMemoryError,
    RankError,
    did_you_mean,
    one_line,
    printable,
)
from ..core.imports import exit_interrupted
from ..core.interrupts import ENDINGS, Terminated, terminate
from ..model import MLP


class UsageError(Exception):
    """An argument is wrong."""


WRONG = (UsageError, DataError, ModelFileError, DeviceError, ExecutorError)
"""Errors of arguments, data, model files and devices."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the closest option where one was misspelt."""

    def __init__(self, command: str, **arguments: Any) -> None:
        super().__init__(
            prog=f"python -m xpnet.{command}",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
            **arguments,
        )
        self.add_argument("--version", action="version", version=f"xpnet {__version__}")

    def error(self, message: str) -> NoReturn:
        """Print one line, and exit with 2."""
        unknown = re.match(r"unrecognized arguments: (--[^ =]+)", message)
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            suggestion = did_you_mean(unknown[1], known)
            message = f"unknown option {unknown[1]}: {suggestion if '?' in suggestion else 'see --help'}"
        self.exit(2, f"{self.prog}: error: {one_sentence(message)}\n")

    def check_writable(self, path: Path, option: str = "") -> None:
        """End the command where a file cannot be written, as far as its path and its folder tell."""
        # os.path.isdir, because Path.is_dir raises without permission.
        folder = path.parent
        if os.path.isdir(path) or not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):  # noqa: PTH112
            named = f"{option} {path}" if option else path
            self.error(f"{named} cannot be written: it must be a file, in a folder that is there and can be written")


def one_sentence(text: object) -> str:
    """`text` on one line, printable."""
    return printable(" ".join(str(text).split()))


def cells(text: str) -> int:
    """Width of a text on a terminal: an East Asian letter has two cells, and a combining mark none."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def align_right(text: str, width: int) -> str:
    """Text aligned to the right of a number of cells."""
    return " " * (width - cells(text)) + text


def whole_number(text: str) -> int:
    """Return a whole number in ASCII digits; int() would take 1_000 and digits of other scripts."""
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def number(text: str) -> float:
    """Return a finite number; float() would take nan, inf, 1e400 and 1_000."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return float(text)


def add_device_options(add: Callable[..., object], default: str = "auto") -> None:
    """Add --device and --require-device to a parser or a group, given its `add_argument`."""
    add("--device", default=default, metavar="auto|cpu|cuda|cuda:N", help="(default: auto, a GPU where one is usable)")
    add("--require-device", action="store_true", default=False, help="fail, rather than fall back to the CPU")


def load_model(path: Path, device: Device = CPU, replica: int | None = None) -> MLP:
    """Load the model of a file, or of a run's folder, or one replica of it.

    Errors end the command: of files, of a replica that is not there, and where one must be chosen. Members of an
    ensemble that diverged are told of.
    """
    try:
        model = MLP.load(path, device=device, replica=replica)
    except ModelFileError:
        raise
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if model.replicas is not None and not model.ensemble:
        choose = f"choose one, --replica 0 to {model.replicas - 1}"
        raise UsageError(f"{path}: the model has {model.replicas} replicas: {choose}")
    tell_of_diverged(model)
    return model


def tell(message: object) -> None:
    """Print one line on stderr; a run goes on where stderr was closed."""
    with contextlib.suppress(OSError):
        print(one_sentence(message), file=sys.stderr, flush=True)


def tell_of_diverged(model: MLP) -> None:
    """Say how many members of an ensemble diverged, so that it predicts without them."""
    left_out = model.replicas - len(model.members()) if model.ensemble and model.replicas else 0
    if left_out:
        tell(f"{left_out} of {model.replicas} members of the ensemble diverged, and are left out")


def choose_device(request: str, *, require: bool = False) -> Device:
    """Return the device, or the CPU where no GPU is usable, saying why in one line; with `require`, raise instead."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            device = get_device(request)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except DeviceUnavailable as error:
        if require:
            raise
        tell(f"{request} cannot be used: {error}; going on with the CPU")
        return CPU
    for warning in caught:
        tell(warning.message)
    return device


def dispatch(
    program: str, what: str, purposes: Mapping[str, str], modules: Mapping[str, str], arguments: Sequence[str] | None
) -> int:
    """Run the `main` of the module that the first argument names, or list what there is; return the exit code.

    Args:
        program: the package that was run.
        what: what the first argument is called in its usage.
        purposes: what each name is for.
        modules: the module of each name.
        arguments: by default those of the process.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in modules:
        code: int = importlib.import_module(modules[words[0]]).main(words[1:])
        return code

    def list_them(words: Sequence[str] | None) -> int:
        if not words or words[0] in ("-h", "--help"):
            print(f"usage: python -m {program} {what} [OPTION ...]  (or: python -m {program}.{what} ...)\n")
            for name, purpose in purposes.items():
                print(f"  {name:<11} {purpose}")
            print(f"\npython -m {program} {what} --help lists the options of one.")
        elif words[0] == "--version":
            print(f"xpnet {__version__}")
        else:
            raise UsageError(f"unknown {what.lower()} {words[0]!r}: {did_you_mean(words[0], purposes)}")
        return 0

    return run(list_them, words)


def run(command: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what goes wrong is one line on stderr."""
    # A stream that was closed (>&-) is None.
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal has no letters for must not end the run
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it cannot keep a cache
    main_thread = threading.current_thread() is threading.main_thread()
    # One that is ignored stays so: nohup ignores SIGHUP.
    heeded = [number for number in ENDINGS if main_thread and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, terminate) for number in heeded}
    try:
        if main_thread and signal.getsignal(signal.SIGINT) is exit_interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *details: tell(f"warning: {message}")  # without a line of code
            code = command(arguments)
        sys.stdout.flush()
        return code
    except WRONG as error:
        tell(f"error: {error}")
        return 2
    except RankError as error:
        tell(f"error: {error}")
        return 2 if issubclass(error.kind, (*WRONG, SystemExit, TypeError, ValueError)) else 1
    except DivergedError as error:
        tell(f"error: {error}")
    except KeyboardInterrupt as error:
        tell(f"interrupted{f': {error}' if str(error) else ''}")
        return 128 + error.number if isinstance(error, Terminated) else 130
    except BrokenPipeError:  # whoever read the output has seen enough
        _drop(sys.stdout)
    except OSError as error:
        if error.filename is None:  # every file of ours names itself
            _drop(sys.stdout)
        tell(f"error: {error.filename or 'standard output'}: {error.strerror or error}")
    except DeviceMemoryError as error:
        tell(f"error: {error}")
    except NetworkMemoryError as error:
        tell(f"error: out of memory: {error}")
    except MemoryError as error:
        tell(f"error: out of memory{f' ({one_line(error)})' if str(error) else ''}; try a smaller --batch-size")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 1


def _drop(stream: TextIO) -> None:
    """Send to nowhere what a stream still holds, so that the interpreter's end is silent."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
