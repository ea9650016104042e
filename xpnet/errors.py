"""The errors of xpnet: each is also the built-in error that a caller would expect."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XpnetError(Exception):
    """The base of every error that xpnet raises itself, apart from plain ValueError and TypeError for arguments."""


class DataError(XpnetError, ValueError):
    """A data file, or the data in it, cannot be used; the message names the file."""


class ModelFileError(XpnetError, ValueError):
    """A model file is damaged, or is no model file of ours; the message names the file."""


class DeviceError(XpnetError, RuntimeError):
    """The device that was asked for cannot be had, and the caller must change something."""


class DeviceUnavailable(DeviceError):
    """This machine has no usable GPU: a program that also runs on the CPU may go on there."""


class DivergedError(XpnetError, ArithmeticError):
    """The training loss is no longer finite."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return what is known, as a sentence: with the closest name where one is close, and all names otherwise.

    >>> did_you_mean("rellu", ["relu", "tanh"])
    "did you mean 'relu'?"
    >>> did_you_mean("xyz", ["relu", "tanh"])
    'choose from: relu, tanh'
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """Return an error's class and message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
