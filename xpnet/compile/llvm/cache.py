"""The cache of compiled code on disk.

Code that is loaded runs as the user, and whoever can write a file can write its digest. So code is taken only from
files and a folder of the user's own, or root's, that nobody else may write. The digest is against damage and exchanged
files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from ...core.files import user_cache

MAX_BYTES = 2**26  # some thousands of functions
MAX_CODE = 2**24  # bytes of one function; the largest have a hundred kB
# A link is not followed, and a pipe does not wait for a writer. Windows has neither flag, but O_BINARY.
FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def user_folder() -> Path | None:
    """Return the folder of the user's compiled code; None where there is no home folder."""
    with contextlib.suppress(OSError):
        return user_cache() / "code"
    return None


def key_of(made_for: str, text: str) -> str:
    """Return the digest of a text that is compiled for a target, which names its code."""
    return hashlib.sha256(f"{made_for}\n{text}".encode()).hexdigest()[:32]


class CodeCache:
    """Compiled code in a folder, a file for each function, so that the next process need not compile it.

    A file holds a SHA-256 of the function's digest and its code, and then the code. Where the folder cannot be written,
    or belongs to somebody else, nothing is stored or loaded, and nothing raised.

    Attributes:
        folder: where the files are; None for no cache.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._why_unused = "there is no home folder" if folder is None else None
        self._made = False
        self._trimmed = False

    def why_unused(self) -> str | None:
        """Return why code is neither stored nor loaded; None where it is."""
        self._own_folder()
        return self._why_unused

    def load(self, digest: str) -> bytes | None:
        """Return the code of a function by its digest; None where there is none."""
        folder = self._own_folder()
        if folder is None:
            return None
        try:
            with open(folder / f"{digest}.code", "rb", opener=lambda path, _: os.open(path, FLAGS)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or not _trusted(status) or status.st_size > MAX_CODE:
                    return None
                data = file.read(MAX_CODE)
        except OSError:
            return None
        return data[32:] if _checksum(digest, data[32:]) == data[:32] else None

    def store(self, digest: str, code: bytes) -> None:
        """Write the code of a function."""
        folder = self._own_folder()
        if folder is None:
            return
        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(".tmp", ".", folder)  # for this user alone
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(digest, code) + code)
            Path(temporary).replace(folder / f"{digest}.code")
            if not self._trimmed:
                self._trimmed = True
                with contextlib.suppress(OSError):  # another process removes the same
                    self._trim(folder)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink(missing_ok=True)
            self.folder = None  # full, or read-only

    def _own_folder(self) -> Path | None:
        """The folder, made and checked at the first use; None, from then on, where others may write it."""
        if self.folder is not None and not self._made:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if os.name != "nt" and self.folder.stat().st_uid == os.geteuid():
                    self.folder.chmod(0o700)  # it may be older, and made with a mask that lets a group write
                if not _trusted(self.folder.stat()):
                    raise PermissionError(errno.EPERM, "others may write it, or it is theirs")
            except OSError as error:
                self._why_unused = f"{self.folder}: {error.strerror}"
                self.folder = None
            self._made = True
        return self.folder

    @staticmethod
    def _trim(folder: Path) -> None:
        """Remove the oldest files beyond MAX_BYTES; once a process, as it reads the size of each."""
        found = [(path.lstat(), path) for path in folder.iterdir()]
        total = 0
        for status, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns, reverse=True):
            total += status.st_size
            if total > MAX_BYTES and not stat.S_ISDIR(status.st_mode):
                path.unlink(missing_ok=True)


def _trusted(status: os.stat_result) -> bool:
    """Whether a file or folder is this user's or root's, and nobody else may write it; on Windows, profiles are."""
    return os.name == "nt" or (status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022)


def _checksum(digest: str, code: bytes) -> bytes:
    """SHA-256 of the code of the function with a digest: of another function, it is another."""
    return hashlib.sha256(digest.encode() + code).digest()
