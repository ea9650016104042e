"""The choice between CPU and GPU: by a measurement that is remembered."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from limits import limited
from stand_in import StandIn

from xpnet.commands import train
from xpnet.core.device import CPU, Device, gpu_properties
from xpnet.training import choice

GPU = Device("cuda:0", StandIn(), 0)
LONG = {"sizes": [100, 200, 10], "batch_size": 128, "steps": 10_000}


@pytest.fixture(autouse=True)
def file(monkeypatch, tmp_path):
    path = tmp_path / "cache" / "devices.json"
    monkeypatch.setattr(choice, "_cache", lambda: path)
    monkeypatch.setattr(choice, "machine", lambda gpu: [gpu.name])
    return path


@pytest.fixture
def measured(monkeypatch):
    """Times by the device's name, and the calls that measured one."""
    times, calls = {"cpu": 0.001, "cuda:0": 0.0001}, []

    def measure(device, **options):
        calls.append((device.name, options))
        return times[device.name]

    monkeypatch.setattr(choice, "seconds_a_step", measure)
    return times, calls


def test_the_faster_one(measured):
    device, why = choice.faster_device(GPU, **LONG)
    assert device is GPU
    assert why == "cuda:0: a step takes 1,000 us on cpu, 100 us on cuda:0 (measured now)"
    assert [name for name, _ in measured[1]] == ["cpu", "cuda:0"]


def test_each_network_is_measured_once(measured):
    times, calls = measured
    choice.faster_device(GPU, **LONG)
    times["cpu"] = 0.00001
    device, why = choice.faster_device(GPU, **LONG)
    assert (device, why.split()[-1], len(calls)) == (GPU, "(remembered)", 2)
    for other in ({"batch_size": 256}, {"sizes": [100, 300, 10]}, {"dtype": "float64"}, {"replicas": 3}):
        device, why = choice.faster_device(GPU, **LONG | other)
        assert (device, why.split()[-1]) == (CPU, "now)"), other


def test_a_short_training_is_the_cpus(measured):
    device, why = choice.faster_device(GPU, [4, 100, 3], 128, 100)
    assert (device, measured[1]) == (CPU, [])
    assert why == "cpu, which ends so short a training before a GPU has been started"


def test_a_gpu_that_fails_is_not_chosen(monkeypatch, file):
    def measure(device, **options):
        if device is GPU:
            raise MemoryError("no room")
        return 1.0

    monkeypatch.setattr(choice, "seconds_a_step", measure)
    device, why = choice.faster_device(GPU, **LONG)
    assert (device, why) == (CPU, "cpu, since a training on cuda:0 failed: MemoryError: no room")
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "[1]", '{"x": ', '{"x": {"cpu": "fast"}}', "[" * 100000, " " * 2**20 + "{}"])
def test_a_file_that_cannot_be_read_is_written_anew(content, measured, file):
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    assert choice.faster_device(GPU, **LONG)[0] is GPU
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes and devices")
@pytest.mark.parametrize("kind", ["a pipe", "an endless device"])
def test_what_stands_in_the_place_of_the_file(kind, measured, file):
    file.parent.mkdir()
    if kind == "a pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with limited():
        assert choice.faster_device(GPU, **LONG)[0] is GPU
    assert not file.is_file()


def test_a_file_that_cannot_be_written(measured, file):
    file.parent.write_text("a file where the folder would be", encoding="utf-8")
    assert choice.faster_device(GPU, **LONG)[0] is GPU


def test_no_more_are_remembered_than_there_is_room_for(measured, file, monkeypatch):
    monkeypatch.setattr(choice, "REMEMBERED", 2)
    for batch_size in (64, 128, 256):
        choice.faster_device(GPU, **LONG | {"batch_size": batch_size})
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 2


def test_a_step_takes_some_time(monkeypatch):
    monkeypatch.setattr(choice, "SECONDS", 0.01)
    one, large = (choice.seconds_a_step(CPU, [20, width, 3], 32, "float32") for width in (10, 600))
    assert 1e-6 < one < large < 1.0


def test_the_command_says_what_auto_is(monkeypatch, run):
    monkeypatch.setattr("xpnet.commands.cli.get_device", lambda request: GPU)
    monkeypatch.setattr("xpnet.commands.train.faster_device", lambda *given, **named: (CPU, "cpu, for a reason"))
    code, out, err = run(train, "--dataset", "digits", "--steps", 5, "--json")
    assert (code, json.loads(out)["device"]) == (0, "cpu")
    assert "auto is cpu, for a reason\n" in err
    code, out, err = run(train, "--dataset", "digits", "--steps", 5, "--json", "--quiet")
    assert (code, err) == (0, "")


@pytest.mark.cuda
def test_both_devices_are_measured(monkeypatch, cuda):
    monkeypatch.undo()
    monkeypatch.setattr(choice, "SECONDS", 0.01)
    assert gpu_properties(cuda)["memory"] > 0
    times = [choice.seconds_a_step(device, [20, 30, 3], 32, "float32") for device in (CPU, cuda)]
    assert all(1e-6 < time < 10.0 for time in times)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_estimators(monkeypatch, cuda, capsys):
    sklearn = pytest.importorskip("xpnet.sklearn")
    x, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 3
    monkeypatch.setattr("xpnet.sklearn.training.faster_device", lambda *given, **named: (CPU, "cpu, for a reason"))
    fitted = sklearn.MLPClassifier(device="auto", max_iter=2, tol=1.0, verbose=True).fit(x, y)
    assert fitted._model.device is CPU
    assert capsys.readouterr().out.startswith("auto is cpu, for a reason")
