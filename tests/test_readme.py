"""What the README says, done: its Python runs, its commands exist, and what .ci/run takes out of it is a command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xpnet import predict, train

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


def test_its_options_exist(capsys):
    for module, name in ((train, "train"), (predict, "predict")):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        for line in README.splitlines():
            if re.match(rf"(\.venv/bin/)?python -m xpnet.{name} ", line):
                assert set(re.findall(r"--[a-z-]+", line.split("#")[0])) <= known, line
