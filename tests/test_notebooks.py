"""The notebooks in docs/notebooks run from top to bottom, and show the code as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def code_shown(notebook):
    """Code of the package that a notebook prints."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return ["".join(output.data["text/markdown"]) for output in outputs if "text/markdown" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    shown = code_shown(notebook)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    assert code_shown(notebook) == shown, "other code than in the notebook: run scripts/make_notebooks.py"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert not re.search("Warning|Exception", output.get("text", "")), (cell.source, output.text)
