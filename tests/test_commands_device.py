"""Choosing a device, and what `doctor` finds."""

from __future__ import annotations

import json
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
    for version, extra in ((13010, "cuda13"), (12090, "cuda12")):
        monkeypatch.setattr(doctor, "driver_cuda_version", lambda version=version: version)
        findings = {finding.name: finding for finding in doctor.examine()}
        assert findings["CuPy"].advice == f"pip install 'xpnet[{extra}]'"
    monkeypatch.setattr(doctor, "cupy_distributions", lambda: {"cupy-cuda12x": "14", "cupy-cuda13x": "14"})
    findings = {finding.name: finding for finding in doctor.examine()}
    assert "break each other" in findings["CuPy"].advice


def test_doctor_survives_what_it_finds(monkeypatch):
    def broken():
        raise RuntimeError("it hurts\nhere")

    monkeypatch.setitem(doctor.CHECKS, "GPU", broken)
    (finding,) = [finding for finding in doctor.examine() if finding.name == "GPU"]
    assert finding.found == "could not be examined: RuntimeError: it hurts here"
