"""Downloads from servers that send too much, too slowly, or something else than they were asked for."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from xpnet.data import download
from xpnet.data.download import fetch


class Handler(BaseHTTPRequestHandler):
    """A server whose answer is a function of its own."""

    def do_GET(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self)

    def log_message(self, *arguments):
        pass

    def send(self, content, **headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def serve():
    """Serve an answer; give its address."""
    servers = []

    def serve(answer):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.answer = answer
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/a"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_is_sent_is_written(serve, tmp_path, capfd):
    content = bytes(range(256)) * 1000
    fetch(serve(lambda to: to.send(content, Content_Length=len(content))), tmp_path / "a", progress=True)
    assert (tmp_path / "a").read_bytes() == content
    assert "256k/256k" in capfd.readouterr().err


def drip(to):
    to.send(b"")
    for _ in range(50):
        to.wfile.write(b"x")
        time.sleep(0.1)


def drip_headers(to):
    to.wfile.write(b"HTTP/1.0 200 OK\r\n")
    for number in range(50):
        to.wfile.write(f"X-{number}: a\r\n".encode())
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [drip, drip_headers])
def test_bytes_that_drip(answer, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "READ_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"\d bytes in 1 s"):
        fetch(serve(answer), tmp_path / "a")
    assert time.monotonic() - start < 2
    assert not (tmp_path / "a").exists()


def test_a_slow_server_that_goes_on_is_heard_out(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    monkeypatch.setattr(download, "PIECE", 1000)

    def answer(to):
        to.send(b"")
        for _ in range(10):
            to.wfile.write(bytes(2**13))
            time.sleep(0.1)

    fetch(serve(answer), tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 10 * 2**13


def test_a_body_without_end(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 2**20)
    sent = []

    def answer(to):
        to.send(b"")
        while True:
            to.wfile.write(bytes(2**16))
            sent.append(2**16)

    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        fetch(serve(answer), tmp_path / "a")
    assert sum(sent) < 2**24
    assert not (tmp_path / "a").exists()


def test_an_encoding_is_not_undone(serve, tmp_path):
    """260 kB of it can be 268 MB."""
    bomb = gzip.compress(bytes(2**24))
    fetch(serve(lambda to: to.send(bomb, Content_Encoding="gzip", Content_Length=len(bomb))), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == bomb


def test_errors_of_a_server(serve, tmp_path):
    import requests

    with pytest.raises(requests.HTTPError, match="404"):
        fetch(serve(lambda to: to.send_error(404)), tmp_path / "a")
    with pytest.raises(requests.ConnectionError):
        fetch("http://127.0.0.1:9/", tmp_path / "a")
    with pytest.raises(Exception, match="IncompleteRead|Connection broken"):
        fetch(serve(lambda to: to.send(b"abc", Content_Length=10)), tmp_path / "a")
