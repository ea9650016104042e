"""Downloads of bounded length and time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 4
READ_SECONDS = 10  # for a piece; and until bytes must come at LEAST_RATE
LEAST_RATE = 2**15  # bytes a second, on average
MOST_BYTES = 2**25  # the largest file of a known data set has 26 MB
PIECE = 2**16


class _Request(threading.Thread):
    """A request, whose answer is read in a thread of its own.

    The time limit of a socket holds for each piece, of headers too: a server that sends a byte now and then is within
    it for days. A thread that is given up on ends at its next piece, or with the process.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.body = bytearray()
        self.total: int | None = None
        self.error: Exception | None = None
        self.given_up = False

    def run(self) -> None:
        """Read the answer into `body`, as it was sent: a content encoding is not undone."""
        import requests

        try:
            identity = {"Accept-Encoding": "identity"}
            limits = (CONNECT_SECONDS, READ_SECONDS)
            with requests.get(self.url, stream=True, timeout=limits, headers=identity) as response:
                response.raise_for_status()
                length = response.headers.get("Content-Length", "")
                self.total = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
                while not self.given_up and (piece := response.raw.read(PIECE, decode_content=False)):
                    self.body += piece
                    if len(self.body) > MOST_BYTES:
                        raise ValueError(f"more than {MOST_BYTES} bytes")
        except Exception as error:
            self.error = error


def fetch(url: str, path: Path | str, _: Any = None, *, progress: bool = False) -> None:
    """Write what `url` sends into the file `path`, as a downloader of pooch.

    Raises ValueError where it is too long, TimeoutError where it comes too slowly, and the errors of requests.
    """
    from tqdm import tqdm

    request = _Request(url)
    start = time.monotonic()
    request.start()
    try:
        with tqdm(unit="B", unit_scale=True, disable=not progress) as bar:
            running = True
            while running:
                request.join(0.1)
                running = request.is_alive()
                bar.total = request.total
                bar.update(len(request.body) - bar.n)
                if running and time.monotonic() - start > READ_SECONDS + len(request.body) / LEAST_RATE:
                    raise TimeoutError(f"{len(request.body)} bytes in {time.monotonic() - start:.0f} s")
    finally:
        request.given_up = True
    if request.error is not None:
        raise request.error
    Path(path).write_bytes(request.body)
