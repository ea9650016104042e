"""The cache of compiled code on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

MAX_BYTES = 2**26  # some thousands of functions


def user_folder() -> Path:
    """Return the folder of the user's compiled code."""
    import platformdirs

    return platformdirs.user_cache_path("xpnet") / "code"


class CodeCache:
    """Compiled code in a folder, a file for each function, so that the next process need not compile it.

    A file holds the SHA-256 of the code and then the code: a damaged one is not run. Where the folder cannot be
    written, nothing is stored, and nothing raised.

    Attributes:
        folder: where the files are; None for no cache.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._trimmed = False

    def load(self, digest: str) -> bytes | None:
        """Return the code of a function by its digest; None where there is none."""
        if self.folder is None:
            return None
        try:
            data = (self.folder / f"{digest}.code").read_bytes()
        except OSError:
            return None
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

    def store(self, digest: str, code: bytes) -> None:
        """Write the code of a function."""
        if self.folder is None:
            return
        temporary = self.folder / f".{digest}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
            temporary.replace(self.folder / f"{digest}.code")
            if not self._trimmed:
                self._trimmed = True
                with contextlib.suppress(OSError):  # another process removes the same
                    self._trim(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.folder = None  # full, or read-only

    @staticmethod
    def _trim(folder: Path) -> None:
        """Remove the oldest files beyond MAX_BYTES; once a process, as it reads the size of each."""
        found = [(path.stat(), path) for path in folder.iterdir()]
        total = 0
        for status, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns, reverse=True):
            total += status.st_size
            if total > MAX_BYTES:
                path.unlink(missing_ok=True)
