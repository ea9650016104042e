"""The errors of xpnet: each is also the built-in error that a caller would expect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any
from unicodedata import category

LONGEST = 1000  # characters of an error that is quoted in another


class XpnetError(Exception):
    """The base of every error that xpnet raises itself, apart from plain ValueError and TypeError for arguments."""


class DataError(XpnetError, ValueError):
    """A data file, or the data in it, cannot be used; the message names the file."""


class ModelFileError(XpnetError, ValueError):
    """A model file is damaged, or is no model file of ours; the message names the file."""


class DeviceError(XpnetError, RuntimeError):
    """The requested device is not available; the caller must change something."""


class DeviceUnavailable(DeviceError):
    """This machine has no usable GPU: a program that also runs on the CPU may go on there."""


class DeviceBroken(DeviceUnavailable):
    """CuPy or a GPU is there, but fails: `auto` says so before it takes the CPU."""


class ExecutorError(XpnetError, RuntimeError):
    """The executor of a search takes no more jobs: a cluster is gone, or processes cannot be started."""


class RankError(XpnetError, RuntimeError):
    """Another rank has ended the training; the message has its number and its reason, `kind` the type of its error."""

    def __init__(self, text: str, kind: type[BaseException] = Exception) -> None:
        super().__init__(text)
        self.kind = kind


class DeviceMemoryError(XpnetError, MemoryError):
    """The memory of a GPU is full; the message has the bytes needed and free."""


class NetworkMemoryError(XpnetError, MemoryError):
    """The parameters of a network do not fit into memory."""


class DivergedError(XpnetError, ArithmeticError):
    """The training loss is no longer finite.

    Attributes:
        row: the epoch that diverged, as a row of the history, where it is none; None for others.
    """

    def __init__(self, message: str, row: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.row = row


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Sentence about known names: the closest one, or, where none is close, all of them.

    Names are compared regardless of case: they must be typed exactly, but a name in other letters is always found.

    >>> did_you_mean("rellu", ["relu", "tanh"])
    "did you mean 'relu'?"
    >>> did_you_mean("xyz", ["relu", "tanh"])
    'choose from: relu, tanh'
    >>> did_you_mean("ReLU", ["relu", "tanh"])
    "did you mean 'relu'?"
    """
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), names, n=1)
    return f"did you mean {names[close[0]]!r}?" if close else f"choose from: {', '.join(names.values())}"


def printable(text: object) -> str:
    r"""Text for a terminal or a picture: characters other than letters, signs and blanks are escaped, line ends too.

    >>> print(printable("red\n\x1b[31m"))
    red\n\x1b[31m
    """
    return "".join(
        c if c.isprintable() or category(c) == "Zs" else c.encode("unicode_escape").decode() for c in str(text)
    )


def one_line(error: BaseException) -> str:
    """Return an error's class and message on one line, which is cut off where it is long."""
    return quoted(f"{type(error).__name__}: {error}".rstrip(": "))


def quoted(text: object) -> str:
    """Return a text, or an error's message, on one line, which is cut off where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
