"""Writing files so that a crash, a full disk or a second writer never leaves half of one; and locks."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import zlib
from pathlib import Path
from typing import IO


def write_atomically(path: Path, content: bytes | str, *, previous: Path | None = None) -> None:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, and rename it: all of it, or nothing.

    With `previous`, the file that was there before is kept under that name, and, where the file system has hard links,
    there is one at `path` at any time. The folder is flushed to disk as well, so that the new name outlasts a loss of
    power.

    Raises OSError where it cannot be written; a file that was there before is then still there. A device or a pipe is
    refused, since the new file would take its place.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f"{_temporary_start(path)}{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # not the temporary one, or, of a write, none
        raise


def remove_temporary(path: Path) -> None:
    """Remove what a process that was killed while it wrote a file has left beside it; nobody may be writing it."""
    for left in path.parent.glob(f"{_temporary_start(path)}*.tmp"):
        with contextlib.suppress(OSError):
            left.unlink()


def _temporary_start(path: Path) -> str:
    """Beginning of the names of a file's temporary files."""
    return f".xpnet-{zlib.crc32(os.fsencode(path.name)):08x}-"


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name; its only one, where the file system has no hard links."""
    try:
        previous.unlink(missing_ok=True)
        previous.hardlink_to(path)
    except (OSError, NotImplementedError):
        path.replace(previous)


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
    trial = folder / ".xpnet-try.tmp"
    write_atomically(trial, bytes(2**12))  # a full disk has room for names
    trial.unlink()


def user_cache() -> Path:
    """Return xpnet's folder in the user's cache; raise OSError where there is no home folder."""
    import platformdirs

    try:
        path = platformdirs.user_cache_path("xpnet")
    except RuntimeError:
        path = Path()
    if not path.is_absolute():  # earlier versions of platformdirs leave a ~
        raise FileNotFoundError(errno.ENOENT, "there is no home folder; set HOME or XDG_CACHE_HOME", "~/.cache")
    return path


def disk_is_full(error: OSError) -> bool:
    """Whether a file could not be written for want of room: on the disk, in a quota, or below a limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Lock:
    """A lock file, held by one process at a time: until `release`, or until the process ends.

    It is a file of its own, since a file that is replaced takes its lock with it. Raises BlockingIOError where another
    process holds it, and another OSError where it cannot be written.

    Attributes:
        held: False on a file system without locks, where nothing keeps a second process out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        while True:
            self._file = path.open("ab")
            try:
                self.held = _try_locking(self._file)
            except BaseException:
                self._file.close()
                raise
            if self._is_at_path():
                break
            self._file.close()  # its holder removed it after it was opened

    def release(self) -> None:
        """Remove the file, and let go of the lock."""
        if os.name == "nt":  # where an open file cannot be removed
            self._file.close()
            with contextlib.suppress(OSError):
                self._path.unlink()
            return
        with self._file, contextlib.suppress(OSError):
            if self._is_at_path():  # and the folder has not been moved
                self._path.unlink()

    def _is_at_path(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        return False


def _try_locking(file: IO[bytes]) -> bool:
    """Lock an open file; return False where the file system has no locks, raise BlockingIOError where it is locked."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # the latter on Windows
        raise BlockingIOError(errno.EAGAIN, "another process has locked it", file.name) from error
    except OSError:
        return False
    return True
