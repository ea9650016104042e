"""The pages in docs/: their Python runs, their commands and links exist, and charts and tables are up to date.

docs/sklearn.md has a test file of its own, since it needs scikit-learn.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import needs_llvm

import xpnet
from xpnet.commands import draw, explain, export, predict, runs, search, train
from xpnet.compile import record
from xpnet.compile.cuda.compiler import Compiler
from xpnet.compile.cuda.mapping import Kernel
from xpnet.compile.cuda.plan import launch_plan
from xpnet.compile.llvm.cache import CodeCache
from xpnet.lab.__main__ import EXPERIMENTS, TOOLS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)


def commands(path):
    """Commands of a page, a line each, without their comments."""
    lines = [line for language in ("sh", "bash") for block in blocks(path, language) for line in block.splitlines()]
    return [re.split(r"\s+#", line)[0] for line in lines]


RUN = [
    pytest.param(path, marks=[pytest.mark.compiles] * (path.name == "your-own-layer.md"))
    for path in PAGES
    if blocks(path, "python") and path.name != "sklearn.md"
]


@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in blocks(path, "python"):
        exec(compile(block, name_of(path), "exec"), namespace)
    if path.name == "your-own-layer.md":
        assert "value" in namespace["trainer"].compiled, "the reason why its last model was not compiled"


def test_the_notebooks_and_the_list_of_what_can_be_recorded_are_those_of_their_sources():
    command = [sys.executable, str(ROOT / "scripts" / "make_notebooks.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=name_of)
def test_a_notebook_was_executed_without_errors(path):
    cells = [cell for cell in json.loads(text_of(path))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "stream" in kinds
    assert "error" not in kinds


def test_the_page_on_the_compiler_quotes_the_plan():
    page = ROOT / "docs" / "how-the-compiler-works.md"
    text, plan = text_of(page), text_of(page.with_name("plan.txt"))
    quoted = [block for block in blocks(page, "text") if block.startswith("loop")]
    assert quoted
    assert all(block in plan for block in quoted)
    assert re.search(r"has (\d+) instructions", text)[1] == plan.split()[0]
    assert re.findall(r"^ *\[(\d+)\] ", text, re.MULTILINE)[-1] == plan.split()[0], "the table of times is another's"
    assert re.search(r"`(min\(where.*\))`", text)[1].removesuffix(")") in plan


@needs_llvm
def test_the_page_on_gpus_quotes_plans_and_ptx(capsys):
    plans, texts = [], blocks(ROOT / "docs" / "gpu.md", "text")
    for options in ((), ("--dtype", "float64")):
        assert train.main(["--dataset", "digits", "--hidden", "100", "--plan-for", "sm_90", *options]) == 0
        plans.append(capsys.readouterr().out)
    quoted = [block for block in texts if block.startswith(("product", "loop"))]
    assert len(quoted) == 2
    assert all(block in plan for block, plan in zip(quoted, plans, strict=True))

    def layer(xp, a):
        a["y"][...] = xp.maximum(a["x"] @ a["W"] + a["b"], 0.0)

    shapes = {"x": (128, 64), "W": (64, 100), "b": (1, 100), "y": (128, 100)}
    plan = launch_plan(record(layer, {name: np.ones(shape) for name, shape in shapes.items()}), lambda product: False)
    kernel = Kernel(plan.launches[1], plan.inlining)
    ptx = Compiler(90, CodeCache(None)).ptx(kernel.text).decode()
    (quote,) = [block for block in texts if block.startswith("ld.global")]

    def instructions(text):
        """Without their registers, types and rounding, which versions of LLVM write differently."""
        return [re.sub(r"(\.rn)?\.[bf]64$", "", line.split()[0]) for line in text.splitlines() if line.split()]

    assert " ".join(instructions(quote)) in " ".join(instructions(ptx))


def test_options_exist(capsys):
    for module in (train, predict, draw, runs, explain, export, search):
        name = module.__name__.rpartition(".")[2]
        with pytest.raises(SystemExit):
            module.main(["--help"])
        known = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
        for path in TEXTS:
            for line in commands(path):
                if re.match(rf"(\.venv/bin/)?python -m xpnet\.{name} ", line):
                    assert set(re.findall(r"--[a-z0-9-]+", line)) <= known, f"{name_of(path)}: {line}"


def test_experiments_exist():
    for path in TEXTS:
        for line in commands(path):
            found = re.match(r"python -m xpnet\.lab (\w+)", line)
            assert found is None or found[1] in {*EXPERIMENTS, *TOOLS, "all"}, f"{name_of(path)}: {line}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path):
    """Sphinx checks anchors as well; this needs no Sphinx."""
    prose = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    linked = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|srcset)="([^"]+)"', prose)
    for target in linked:
        if not re.match(r"https?://|#", target):
            assert (path.parent / target.partition("#")[0]).is_file(), target


def test_each_public_name_is_in_the_reference():
    named = set(re.findall(r"^\.\. auto\w+:: xpnet\.(\w+)", text_of(ROOT / "docs" / "api.md"), re.MULTILINE))
    assert set(xpnet.__all__) <= named
    from xpnet import nn, optim

    for module in (nn, optim):
        classes = {name for name in module.__all__ if isinstance(getattr(module, name), type)}
        text = text_of(ROOT / "docs" / "api.md")
        assert not [name for name in classes if not re.search(rf":: xpnet\.((nn|optim)\.)?{name}$", text, re.MULTILINE)]


def test_the_charts_and_tables_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "scripts" / "make_speed_chart.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
