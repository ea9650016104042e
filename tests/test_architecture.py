"""The house: imports run one way, `nn` and `optim` know no array module, and what they use of it exists everywhere."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from stand_in import FUNCTIONS, METHODS, UFUNC, StandIn

import xpnet
from xpnet.compile.recorder import Recorder
from xpnet.compile.tracer import TracingModule

PACKAGE = Path(xpnet.__file__).parent
# Each floor may import from those below it, and from itself.
FLOORS = [
    {"core", "__init__"},
    {"nn", "optim", "data"},
    {"compile"},
    {"model"},
    {"training", "plots"},
    {"search", "draw"},
    {"commands"},
    {"train", "predict", "runs", "explain", "export", "doctor", "lab", "tutorial", "sklearn", "__main__"},
]
HEAVY = {
    "cupy",
    "matplotlib",
    "PIL",
    "safetensors",
    "pooch",
    "requests",
    "tqdm",
    "threadpoolctl",
    "sklearn",
    "llvmlite",
    "platformdirs",
    "scipy",
    "onnx",
}


TOPS = {path.stem for path in PACKAGE.iterdir()}


def modules():
    """Every module as (dotted name below xpnet, path)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def imports(path):
    """Yield (top name below xpnet, or None, full name) for every import in a file, wherever it stands."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield None, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield None, node.module
            elif node.level == depth:  # from the package itself
                for name in [node.module] if node.module else [alias.name for alias in node.names]:
                    yield (name.split(".")[0] if name.split(".")[0] in TOPS else "__init__"), name


def floor(name):
    return next(i for i, names in enumerate(FLOORS) if name in names)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_run_one_way(module, path):
    top = "__main__" if module.endswith("__main__") else module.split(".")[0]  # a command, wherever it stands
    if module == "__init__":
        return  # the public face imports from everywhere
    for below, name in imports(path):
        assert name != "xpnet" and not name.startswith("xpnet."), f"{module}: relative imports within the package"
        if below is not None:
            assert floor(below) <= floor(top), f"{module} imports {name}, from a floor above its own"
    if top == "nn":
        assert not {below for below, _ in imports(path)} & {"optim", "data"}
    if top == "data":
        assert not {below for below, _ in imports(path)} & {"optim", "nn"}


def test_no_modules_import_each_other():
    """Imports for annotations, and those within functions, count too."""
    paths = {f"xpnet.{module}".removesuffix(".__init__"): path for module, path in modules()}
    graph = {}
    for module, path in paths.items():
        parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        found = graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                source = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
                names = {f"{source}.{alias.name}" for alias in node.names}
                found |= {name if name in paths else source for name in names} - {module}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


def test_every_module_has_a_floor():
    for module, _ in modules():
        floor(module.split(".")[0])


# What each part of the compiler may import of the others.
COMPILER = {
    "ir": set(),
    "types": {"ir"},
    "once": set(),
    "recorder": {"ir", "types"},
    "tracer": {"ir", "types", "recorder"},
    "executable": {"ir"},
    "passes": {"ir", "types", "passes"},
    "llvm": {"ir", "passes", "llvm"},
    "numpy": {"ir", "executable", "passes", "numpy"},
    "cpu": {"ir", "executable", "once", "passes", "llvm", "cpu"},
    "cuda": {"ir", "executable", "passes", "llvm", "cuda"},
}


def parts_imported(path):
    """The parts of `compile` that a file imports, and what it imports from outside the package."""
    depth = len(path.relative_to(PACKAGE / "compile").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (f".{name.split('.')[0]}" for name in names)
        elif isinstance(node, ast.ImportFrom) and node.level < depth:
            yield f".{path.parent.name}"


@pytest.mark.parametrize("part", COMPILER)
def test_parts_of_the_compiler_do_not_know_each_other(part):
    """A pass knows no target, a target no other target, and the representation nothing."""
    place = PACKAGE / "compile" / part
    files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for path in files:
        found = set(parts_imported(path))
        assert {name[1:] for name in found if name.startswith(".")} <= COMPILER[part], path
        assert "llvmlite" not in found or part in {"llvm", "cpu", "cuda"}, path


def test_every_part_of_the_compiler_is_known():
    parts = {path.stem for path in (PACKAGE / "compile").iterdir() if not path.name.startswith("__")}
    assert parts == set(COMPILER) | {"api"}


def xp_sources():
    return [path for top in ("nn", "optim") for path in sorted((PACKAGE / top).glob("*.py"))]


def used_names(path):
    """The names x of every `xp.x` and `self.xp.x` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            value = node.value
            if (isinstance(value, ast.Name) and value.id == "xp") or (
                isinstance(value, ast.Attribute) and value.attr == "xp"
            ):
                yield node.attr


@pytest.mark.parametrize("path", xp_sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_layers_and_optimizers_know_no_array_module(path):
    for _, name in imports(path):
        assert name.split(".")[0] not in {"numpy", "cupy", "cupyx"}, f"{path} imports {name}"
    text = path.read_text(encoding="utf-8")
    assert "np." not in text
    assert " xp is " not in text
    for name in used_names(path):
        assert hasattr(np, name), f"{path.name} uses xp.{name}, and NumPy has none"
        assert hasattr(StandIn(), name), f"{path.name} uses xp.{name}, and the stand-in has none"
        assert name in dir(TracingModule(Recorder())), f"{path.name} uses xp.{name}, and the tracer has none"


def test_the_scan_finds_something():
    assert {"maximum", "exp", "sqrt", "where", "arange"} <= {name for path in xp_sources() for name in used_names(path)}


def test_names_exist_in_cupy():
    """CuPy's wheel imports without a GPU; the stand-in must not allow what CuPy does not take."""
    cupy = pytest.importorskip("cupy")
    import inspect

    for path in sorted(PACKAGE.rglob("*.py")):
        for name in used_names(path):
            assert hasattr(cupy, name), f"{path.name} uses xp.{name}, and CuPy has none"
    for name, taken in FUNCTIONS.items():
        function = getattr(cupy, name)
        if taken is not UFUNC and name != "matmul":
            assert taken <= set(inspect.signature(function).parameters), name
    for name in METHODS:
        assert hasattr(cupy.ndarray, name)


def test_import_is_light():
    """`import xpnet` brings NumPy and the standard library, and no more."""
    code = f"import sys, xpnet; print(sorted({HEAVY} & {{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names_have_docstrings():
    for name in xpnet.__all__:
        assert getattr(xpnet, name).__doc__, name


@pytest.mark.parametrize("module", [name for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "xpnet.")])
def test_examples_in_docstrings(module):
    if module.endswith("__main__"):
        return
    if module.startswith("xpnet.sklearn"):
        pytest.importorskip("sklearn")
    if module == "xpnet.plots":
        pytest.importorskip("matplotlib")
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_example_of_the_package():
    result = doctest.testmod(xpnet)
    assert result.failed == 0
    assert result.attempted >= 5
