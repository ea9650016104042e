"""Make the notebooks in docs/notebooks, in English and Korean, and the list of names in docs/your-own-layer.md.

    python scripts/make_notebooks.py [--check]

A source in scripts/notebooks has text in both languages, after lines `@en` and `@ko`, and code, after `@code`, that
both share. The notebooks are executed, and keep their outputs; this needs the extra test-notebooks, and MNIST. With
`--check` nothing is executed or written, and the exit code is 1 where a file is out of date, outputs aside.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from xpnet.compile import traceable_names

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "scripts/notebooks"
PAGE = ROOT / "docs/your-own-layer.md"


def notebook(source: str, language: str) -> dict[str, Any]:
    """Return a notebook of a source in one language, without outputs."""
    cells: list[dict[str, Any]] = []
    for kind, text in re.findall(r"^@(en|ko|code)\n(.*?)(?=^@(?:en|ko|code)$|\Z)", source, re.MULTILINE | re.DOTALL):
        if kind not in ("code", language):
            continue
        cell = {"id": f"cell-{len(cells) + 1}", "metadata": {}, "source": text.strip().splitlines(keepends=True)}
        code: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append((code if kind == "code" else {"cell_type": "markdown"}) | cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def notebooks() -> dict[Path, dict[str, Any]]:
    """Return each notebook by its path."""
    return {
        ROOT / f"docs/notebooks/{path.stem}.{language}.ipynb": notebook(path.read_text(encoding="utf-8"), language)
        for path in sorted(SOURCES.glob("*.md"))
        for language in ("en", "ko")
    }


def without_outputs(path: Path) -> dict[str, Any] | None:
    """Return the notebook in a file as it was before it was executed; None where there is no file."""
    if not path.exists():
        return None
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for cell in whole["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    return whole


def executed(whole: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with its outputs, pictures in 64 colours and without the text that stands for them."""
    import nbclient
    import nbformat

    read = nbformat.reads(json.dumps(whole), as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(read, timeout=300, coalesce_streams=True, resources=resources).execute()
    result: dict[str, Any] = json.loads(nbformat.writes(read))
    for cell in result["cells"]:
        cell["metadata"] = {}  # when it was executed
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]  # bars
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop("text/plain", None)
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
    return result | {key: whole[key] for key in ("metadata", "nbformat", "nbformat_minor")}


def smaller(picture: str) -> str:
    """Return a PNG in Base64 with 64 colours, about a third of its size."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(64, method=Image.Quantize.MAXCOVERAGE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def page_with_names() -> str:
    """Return the page on layers, with the names that a compiled step may use."""
    rows = "\n".join(
        f"| {kind} | {', '.join(f'`{name}`' for name in names)} |" for kind, names in traceable_names().items()
    )
    text = PAGE.read_text(encoding="utf-8")
    return re.sub(r"(?<=\| operators \|)([^\n]*\n).*?(?=\n\n)", lambda found: found[1] + rows, text, flags=re.DOTALL)


def main() -> int:
    """Make the files, or name those that are out of date; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    page = page_with_names()
    if parser.parse_args().check:
        old = [path for path, whole in notebooks().items() if without_outputs(path) != whole]
        old += [PAGE] * (PAGE.read_text(encoding="utf-8") != page)
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: run python scripts/make_notebooks.py")
        return int(bool(old))
    PAGE.write_text(page, encoding="utf-8")
    for path, whole in notebooks().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(executed(whole), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
