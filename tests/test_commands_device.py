"""Choosing a device, and what `doctor` finds."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from command_line import SHORT

import xpnet
from xpnet.commands import doctor, predict, train
from xpnet.core import device as device_module

pytestmark = pytest.mark.usefixtures("no_downloads")

# --- devices


@pytest.fixture(params=["without CuPy", "with CuPy"])
def no_gpu(request, monkeypatch):
    """A machine without a GPU, where CuPy is installed or not."""
    if request.param == "without CuPy":
        monkeypatch.setattr(device_module, "cupy_distributions", dict)
        monkeypatch.setitem(sys.modules, "cupy", None)
        return "CuPy is not installed"
    pytest.importorskip("cupy")
    try:
        xpnet.get_device("cuda")
    except xpnet.DeviceError:
        return "CuPy is installed, but"
    pytest.skip("there is a GPU")


@pytest.mark.parametrize("request_", ["cuda", "cuda:3"])
def test_falling_back_to_the_cpu(run, no_gpu, request_):
    code, out, err = run(train, *SHORT, "--device", request_, "--quiet", "--json")
    assert code == 0
    assert err.startswith(f"{request_} cannot be used: {no_gpu}")
    assert err.endswith("; going on with the CPU\n")
    assert err.count("\n") == 1
    result = json.loads(out)
    assert (result["device"], result["requested_device"]) == ("cpu", request_)


def test_require_device(run, no_gpu, trained):
    for module, arguments in ((train, SHORT), (predict, (trained, trained))):
        code, out, err = run(module, *arguments, "--device", "cuda", "--require-device")
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {no_gpu}")
        assert err.count("\n") == 1


def test_no_gpu_of_that_number_is_an_error(run, stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    code, out, err = run(train, *SHORT, "--device", "cuda:7")
    assert (code, out, err) == (2, "", "error: there is no device cuda:7: this machine has cuda:0 alone\n")


def test_auto_says_why_a_gpu_fails(run, stand_in, monkeypatch):
    def arange(*arguments, **options):
        raise RuntimeError("no headers")

    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    monkeypatch.setattr(stand_in.xp, "arange", arange)
    code, out, err = run(train, *SHORT, "--quiet", "--json")
    reason = "cuda:0 is there, but would not run a kernel: RuntimeError: no headers"
    assert (code, err) == (0, f"auto is the CPU: {reason}\n")
    assert json.loads(out)["device"] == "cpu"


@pytest.mark.parametrize(("error", "code"), [(xpnet.DeviceMemoryError, 1), (xpnet.DeviceError, 2)])
def test_a_gpu_that_fails_in_training_is_one_line(run, stand_in, monkeypatch, error, code):
    def fail(*arguments):
        raise error("cuda:0 has failed")

    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    monkeypatch.setattr("xpnet.training.runner.training_step", fail)
    found = run(train, *SHORT, "--device", "cuda", "--quiet")
    assert found == (code, "", "error: cuda:0 has failed\n")


@pytest.mark.cuda
def test_a_network_beyond_the_gpus_memory(run):
    code, out, err = run(train, *SHORT, "--device", "cuda", "--hidden", "4000000", "4000000", "--quiet")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: cuda:0 is out of memory: ")
    assert err.endswith(" bytes are free; lower the batch size, the units, the replicas or the number of rows\n")


@pytest.mark.cuda
def test_a_home_that_cannot_be_written(tmp_path):
    """CuPy puts compiled kernels there, and does not import without."""
    home = tmp_path / "home"
    home.touch()
    kept = {name: value for name, value in os.environ.items() if name != "CUPY_CACHE_DIR"}
    command = [sys.executable, "-m", "xpnet.train", *SHORT, "--device", "auto", "--quiet"]
    done = subprocess.run(command, env=kept | {"HOME": str(home)}, capture_output=True, text=True, check=True)
    assert "auto is the CPU: CuPy cannot write its compiled kernels" in done.stderr
    assert "set CUPY_CACHE_DIR to a folder that can be written\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_trains_on_a_device_as_on_the_cpu(run, stand_in, monkeypatch, tmp_path):
    """Both eagerly, and on one thread: how many threads the BLAS has is part of what makes bytes equal."""
    monkeypatch.setitem(sys.modules, "cupy", stand_in.xp)
    monkeypatch.setattr(device_module, "cupy_distributions", dict)
    results = []
    for device in ("cuda", "cpu"):
        where = ("--device", device, "--threads", "1", "--out", tmp_path / device)
        code, out, err = run(train, *SHORT, *where, "--json")
        assert code == 0, err
        results.append(json.loads(out))
    assert results[0]["device"] == "cuda:0"
    assert results[0]["test_loss"] == results[1]["test_loss"]
    models = [(tmp_path / device / "model.safetensors").read_bytes() for device in ("cuda", "cpu")]
    assert models[0] == models[1]


def test_two_wheels_are_an_error(run, monkeypatch):
    monkeypatch.setattr(
        device_module, "cupy_distributions", lambda: {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"}
    )
    for device in ("auto", "cuda"):
        code, out, err = run(train, *SHORT, "--device", device)
        assert (code, out) == (2, "")
        assert "cupy-cuda12x 14.2.0 and cupy-cuda13x 14.2.0 are installed side by side" in err
    assert run(train, *SHORT, "--device", "cpu")[0] == 0


def test_doctor(run, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    code, out, _ = run(doctor)
    assert code == 0
    for name in doctor.CHECKS:
        assert f"\n{name}" in f"\n{out}"
    assert "could not be examined" not in out
    assert "OPENBLAS_CORETYPE=Haswell" in out
    assert "-> unset OPENBLAS_CORETYPE" in out
    code, out, _ = run(doctor, "--json")
    report = json.loads(out)
    assert list(report) == list(doctor.CHECKS)
    assert report["NumPy"]["found"].startswith(np.__version__)


def test_doctor_says_which_cupy_fits_the_driver(monkeypatch):
    monkeypatch.setattr(doctor, "cupy_distributions", dict)
    for version, capability, extra in ((13010, 7.5, "cuda13"), (12090, 9.0, "cuda12"), (13010, 7.0, "cuda12")):
        monkeypatch.setattr(doctor, "driver_cuda_version", lambda version=version: version)
        monkeypatch.setattr(doctor, "least_capability", lambda capability=capability: capability)
        findings = {finding.name: finding for finding in doctor.examine()}
        assert findings["CuPy"].advice == f"pip install 'xpnet[{extra}]'"
    monkeypatch.setattr(doctor, "cupy_distributions", lambda: {"cupy-cuda12x": "14", "cupy-cuda13x": "14"})
    findings = {finding.name: finding for finding in doctor.examine()}
    assert "break each other" in findings["CuPy"].advice


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for nvidia-smi")
@pytest.mark.parametrize(
    ("answer", "expected"), [("echo 9.0; echo 7.0", 7.0), ("echo '[N/A]'", math.inf), ("exit 9", math.inf)]
)
def test_doctor_asks_for_the_oldest_gpu(answer, expected, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.least_capability() == expected
    tool.unlink()
    assert doctor.least_capability() == math.inf


def test_doctor_survives_what_it_finds(monkeypatch):
    def broken():
        raise RuntimeError("it hurts\nhere")

    monkeypatch.setitem(doctor.CHECKS, "GPU", broken)
    (finding,) = [finding for finding in doctor.examine() if finding.name == "GPU"]
    assert finding.found == "could not be examined: RuntimeError: it hurts here"


def test_a_gpus_precision_on_the_cpu_is_told(run):
    code, out, err = run(train, "--dataset", "digits", "--steps", 5, "--device", "cpu", "--precision", "tf32")
    assert code == 0 and "loss" in out
    assert "precision tf32 is a GPU's: products on the CPU are in float32" in err
