"""Writing files so that a crash, a full disk or a second writer never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, *, previous: Path | None = None) -> None:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, and rename it: all of it, or nothing.

    With `previous`, the file that was there before is kept under that name. The folder is flushed to disk as well, so
    that the new name outlasts a loss of power.

    Raises OSError where it cannot be written; a file that was there before is then still there. A device or a pipe is
    refused, since the new file would take its place.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".xpnet-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # not the temporary one, or, of a write, none
        raise


def _flush(folder: Path) -> None:
    """Flush a folder to disk, where the system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def try_writing(folder: Path) -> None:
    """Raise OSError where no file can be written into `folder`; leave none."""
    trial = folder / ".xpnet-try"
    write_atomically(trial, "")
    trial.unlink()
