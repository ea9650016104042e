"""The cache of compiled code: what others put into it is not run, and holds nobody up."""

from __future__ import annotations

import os
import sys

import pytest
from limits import limited

from xpnet.compile.llvm import cache
from xpnet.compile.llvm.cache import CodeCache

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes are POSIX's")


@pytest.fixture
def stored(tmp_path):
    """A folder with the code of two functions."""
    one = CodeCache(tmp_path / "xpnet" / "code")
    for name in ("a", "b"):
        one.store(name, b"code of " + name.encode())
    return one.folder


def test_code_is_found_by_its_digest(stored):
    again = CodeCache(stored)
    assert (again.load("a"), again.load("b"), again.load("c")) == (b"code of a", b"code of b", None)


def test_files_that_were_exchanged_are_not_run(stored):
    (stored / "a.code").rename(stored / "c.code")
    (stored / "b.code").rename(stored / "a.code")
    assert [CodeCache(stored).load(name) for name in "abc"] == [None] * 3


REPLACED = {
    "a pipe": lambda path, target: os.mkfifo(path),
    "a device": lambda path, target: path.symlink_to("/dev/zero"),
    "a link": lambda path, target: path.symlink_to(target),
    "a folder": lambda path, target: path.mkdir(),
    "a terabyte": lambda path, target: (path.touch(mode=0o600), os.truncate(path, 2**40)),
    "a file that others may write": lambda path, target: (path.write_bytes(target.read_bytes()), path.chmod(0o666)),
    "another user's file": lambda path, target: (path.write_bytes(target.read_bytes()), path.chmod(0o644)),
}


@posix
@pytest.mark.parametrize("kind", REPLACED)
def test_what_stands_in_the_place_of_code(kind, stored, tmp_path, monkeypatch):
    path, target = stored / "a.code", tmp_path / "target"
    path.rename(target)
    REPLACED[kind](path, target)
    one = CodeCache(stored)
    assert one.load("b") == b"code of b"
    if kind == "another user's file":
        assert one.load("a") == b"code of a"
        give_away(path, monkeypatch)
    with limited(memory=2**26):
        assert one.load("a") is None
        one.store("a", b"code of a")
    if kind != "a folder":
        assert CodeCache(stored).load("a") == b"code of a" or kind.startswith("another")


def give_away(path, monkeypatch):
    """Let a file or folder belong to another user than this process."""
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)


@posix
def test_another_users_folder_is_not_used(stored, monkeypatch):
    give_away(stored, monkeypatch)
    one = CodeCache(stored)
    assert one.load("a") is None
    one.store("c", b"code of c")
    assert sorted(path.name for path in stored.iterdir()) == ["a.code", "b.code"]


@posix
def test_nobody_else_can_write(stored, tmp_path):
    before = os.umask(0)
    try:
        one = CodeCache(tmp_path / "shared" / "code")
        one.store("a", b"code")
        stored.chmod(0o777)
        assert CodeCache(stored).load("a") == b"code of a"
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (one.folder, one.folder / "a.code", stored)] == [
        0o700,
        0o600,
        0o700,
    ]


def test_old_code_is_removed_beside_what_cannot_be(stored, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 100)
    (stored / "folder").mkdir()
    os.utime(stored / "folder", (1, 1))
    os.utime(stored / "b.code", (2, 2))
    CodeCache(stored).store("c", b"code of c")
    assert sorted(path.name for path in stored.iterdir()) == ["a.code", "c.code", "folder"]
