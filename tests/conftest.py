"""What several tests share: the devices to run on, MNIST where it is, and small data."""

from __future__ import annotations

import importlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import chromium
from command_line import DIGITS
from stand_in import StandIn

from xpnet import load_digits
from xpnet.commands import train
from xpnet.compile import UntraceableError
from xpnet.core.device import CPU, Device, get_device
from xpnet.data import mnist


def pytest_addoption(parser):
    parser.addoption("--eager", action="store_true", help="run every training step eagerly, and no test of compiling")


def pytest_configure():
    # A shell starts a command in the background with SIGINT ignored, and Python then leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["XPNET_STRICT"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)  # a pytest that a test starts has options of its own


def pytest_collection_modifyitems(config, items):
    if config.option.eager:

        def compiles(item):
            return item.path.name.startswith("test_compile_") or item.get_closest_marker("compiles")

        config.hook.pytest_deselected(items=[item for item in items if compiles(item)])
        items[:] = [item for item in items if not compiles(item)]
        for item in items:
            item.fixturenames.insert(0, "eager")


@pytest.fixture(autouse=True)
def few_steps_are_compiled(monkeypatch):
    """Compiled steps are tested with few of them, which would else run eagerly, as compiling them does not pay."""
    monkeypatch.setattr("xpnet.training.runner.BREAK_EVEN_ELEMENTS", 0)
    monkeypatch.setattr("xpnet.training.runner.BREAK_EVEN_STEPS", 0)


@pytest.fixture
def not_strict(monkeypatch):
    """An error in tracing or compiling a step is a warning, as for users."""
    monkeypatch.delenv("XPNET_STRICT")


@pytest.fixture
def eager(monkeypatch):
    """Every step runs eagerly, also on the CPU: for tests that compare bytes between devices."""
    monkeypatch.setattr("xpnet.training.runner.why_eager", lambda model, compiled: "this test runs eagerly")
    monkeypatch.setattr("xpnet.model.mlp.MLP.why_untraceable", lambda model: "this test runs eagerly")


@pytest.fixture
def untraceable(monkeypatch):
    """No step can be traced."""

    def refuse(*arguments, **options):
        raise UntraceableError("this test refuses")

    monkeypatch.setattr("xpnet.model.compiled.compile_step", refuse)


@pytest.fixture
def stand_in(eager):
    """A device that behaves as a GPU does, and counts what crosses its border; next to it, the CPU runs eagerly."""
    return Device("cuda:0", StandIn(), 0)


@pytest.fixture
def second(eager):
    """A second device, as it is used while the first one is current."""
    return Device("cuda:1", StandIn(), 1)


@pytest.fixture(scope="session")
def cuda():
    """The real GPU. Tests that use it are marked `cuda`: without a GPU they are deselected."""
    return get_device("cuda")


@pytest.fixture(params=["cpu", "stand-in", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """Every kind of device there is: one test body for all of them."""
    if request.param == "cpu":
        return CPU
    return request.getfixturevalue("stand_in" if request.param == "stand-in" else "cuda")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; pages are opened in it by `browser.opened`."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder that holds MNIST; tests that use it are skipped without one."""
    folder = os.environ.get("XPNET_DATA_DIR")
    if not folder:
        pytest.skip("needs MNIST: set XPNET_DATA_DIR")
    return Path(folder)


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def blobs(rng):
    """Three classes that a small network learns: x (90, 4) float32, y (90,)."""
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 4)) + 2.0 * np.eye(4)[y]
    return x.astype(np.float32), y


@pytest.fixture
def run_lab(tmp_path, capsys, monkeypatch):
    """Run an experiment of the lab with pictures; give its lines of results, and the pictures' names, each sound."""
    from xpnet.lab import __main__ as lab
    from xpnet.lab import experiment

    pytest.importorskip("matplotlib")
    opened, open_lab = [], experiment.open_lab

    def keep_lab(options):
        opened.append(open_lab(options))
        return opened[-1]

    monkeypatch.setattr(experiment, "open_lab", keep_lab)

    def run(*words):
        out = tmp_path / "pictures"
        code = lab.main([*words, "--out", str(out), "--quiet"])
        printed, err = capsys.readouterr()
        assert (code, err) == (0, "")
        pictures = sorted(out.iterdir())
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
        results = "\n".join(opened[-1].lines)
        assert results in printed
        return results, [path.name for path in pictures]

    return run


@pytest.fixture
def lab(device, request):
    """The environment of the experiment of a test's module, test_lab_NAME, on every kind of device."""
    from labs import lab_on

    name = request.module.__name__.rpartition("test_lab_")[2]
    return lab_on(device, importlib.import_module(f"xpnet.lab.{name}"))


@pytest.fixture
def no_downloads(monkeypatch, tmp_path):
    """No test looks at a real cache, or reaches for the network."""
    for name, source in mnist.SOURCES.items():
        monkeypatch.setitem(mnist.SOURCES, name, replace(source, mirrors=(), installed=None))
    monkeypatch.setattr("xpnet.data.MNIST", mnist.SOURCES["mnist"])
    monkeypatch.setattr("xpnet.data.mnist.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)


@pytest.fixture
def run(capsys):
    """Run a command in this process; give its exit code, stdout and stderr."""

    def run(module, *arguments):
        capsys.readouterr()
        try:
            code = module.main([str(a) for a in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run on the digits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train.main([*DIGITS, "--steps", "400", "--quiet", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def digits():
    return load_digits()
