"""Print the lowest versions that pyproject.toml admits, one a line, as pip takes them: numpy==2.0, ...

    pip install -e . $(python scripts/lowest_versions.py) && python -m pytest

Of all extras but those for CUDA and lint, which name exact versions, or none that a processor alone can test.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = (
    "fast",
    "plot",
    "tables",
    "sklearn",
    "test",
    "test-sklearn",
    "onnx",
    "test-onnx",
    "tensorboard",
    "bench",
    "docs",
)


def main() -> None:
    """Print each requirement with its lower bound as its version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for name in EXTRAS for one in project["optional-dependencies"][name])]
    lowest: dict[str, str] = {}
    for requirement in listed:
        found = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if found is None and not requirement.startswith("xpnet["):
            raise SystemExit(f"pyproject.toml has {requirement!r}, and name>=version is what is understood")
        if found is not None and lowest.setdefault(found[1], found[2]) != found[2]:
            raise SystemExit(f"pyproject.toml has {found[1]} from {lowest[found[1]]} on, and from {found[2]} on")
    print(*(f"{name}=={version}" for name, version in lowest.items()), sep="\n")


if __name__ == "__main__":
    main()
