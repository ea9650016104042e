"""The README: its Python runs, and its first two blocks are the commands that .ci/run expects.

tests/test_docs.py checks its commands and links.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_its_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["probabilities"].shape == (360, 10)
    assert float(capsys.readouterr().out.splitlines()[0]) > 0.95


def test_its_first_two_blocks_set_up_everything():
    first, second = blocks("bash")
    for block in (first, second):
        assert block.startswith("python3 -m venv .venv\n.venv/bin/pip install ")
    assert "-m xpnet.train" in first
    assert second.endswith(".venv/bin/python -m pytest\n")


def test_it_is_short():
    assert len(README.splitlines()) < 120
