"""The check of a GPU: its time limits, what survives a failing part, and the report."""

import json
import sys
import time

import ceilings
import gpu_check
import pytest
import replicas
from gpu_check import REPORT_SECONDS, STATED, Part, parts, report, run_part, seconds_to
from host import CUDA_CONTENDERS, Entry, FailedError, Remote, none_trained
from race import compared


@pytest.mark.parametrize("mnist", [False, True])
@pytest.mark.parametrize("form", STATED)
def test_the_limits_add_up_to_the_stated_time(tmp_path, form, mnist):
    chosen = parts(tmp_path, mnist=mnist, quick=form == "quick")
    assert REPORT_SECONDS + sum(part.limit for part in chosen) <= STATED[form]
    assert all(part.limit > gpu_check.GRACE or part.left_out for part in chosen)


def test_a_check_without_mnist_uses_the_digits_and_says_what_it_leaves_out(tmp_path):
    chosen = {part.name: part for part in parts(tmp_path, mnist=False)}
    assert "digits" in chosen["run-cuda"].commands[0]
    assert "XPNET_DATA_DIR" in chosen["whole"].left_out
    assert "XPNET_DATA_DIR" in chosen["accuracy"].left_out


def test_each_test_file_is_in_one_shard(tmp_path):
    tests = next(part for part in parts(tmp_path, mnist=True) if part.name == "tests")
    files = [word for command in tests.commands for word in command if word.endswith(".py")]
    assert "tests/test_gpu_check.py" in files
    assert len(files) == len(set(files)) == len(list(gpu_check.ROOT.glob("tests/test_*.py")))


def part_of(*programs, limit=60.0, **options):
    return Part("part", limit, [[sys.executable, "-c", program] for program in programs], **options)


@pytest.mark.parametrize(
    ("programs", "outcome"),
    [
        (["print(1)"], "passed"),
        (["raise SystemExit(3)"], "failed"),
        (["print(1)", "raise SystemExit(5)"], "passed"),
        (["raise SystemExit(5)", "raise SystemExit(5)"], "failed"),  # no shard had a test
        (["print(1)", "raise SystemExit(1)"], "failed"),
    ],
)
def test_the_outcome_of_a_part(tmp_path, programs, outcome):
    part = part_of(*programs, fine=(0, 5))
    run_part(part, tmp_path)
    assert part.outcome == outcome


@pytest.mark.slow
def test_a_part_that_is_late_is_interrupted_then_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 2)
    child = "import time; time.sleep(3); open('late', 'w')"
    program = (
        f"import os, signal, subprocess, sys, time; os.chdir({str(tmp_path)!r});"
        f" subprocess.Popen([sys.executable, '-c', {child!r}], preexec_fn=lambda: signal.signal(2, signal.SIG_IGN))\n"
        "try:\n time.sleep(60)\nexcept KeyboardInterrupt:\n open('kept', 'w')\n time.sleep(60)"
    )
    part = part_of(program, limit=3.0)
    run_part(part, tmp_path)
    assert part.outcome == "out of time"
    assert part.seconds < 4
    assert (tmp_path / "kept").exists()
    time.sleep(1)
    assert not (tmp_path / "late").exists()


def test_a_program_that_is_missing_is_left_out(tmp_path):
    part = Part("nvidia-smi", 5, [["no-such-program"]])
    run_part(part, tmp_path)
    assert (part.outcome, part.left_out) == ("left out", "no-such-program: No such file or directory")


def test_the_report_goes_on_past_what_is_missing_or_broken(tmp_path):
    surroundings = {"gpu": "A GPU, 580", "processor": "A CPU", "usable_processors": 2, "memory_gib": 4.0}
    surroundings |= {"python": "3", "versions": {"numpy": "2"}, "commit": "abc", "changed_since": False}
    (tmp_path / "versions.json").write_text(json.dumps(surroundings))
    part = vars(part_of("pass")) | {"name": "race", "outcome": "failed", "seconds": 2.0}
    (tmp_path / "parts.json").write_text(json.dumps([part]))
    (tmp_path / "race.log").write_text("Traceback\nValueError: a | b\n")
    (tmp_path / "race.json").write_text('{"results": [')
    (tmp_path / "replicas.json").write_text(
        json.dumps(
            {"counts": [1], "results": {"eager": replicas.compared([[3.0]], [1])}, "left_out": {}, "failed": {}}
            | {"conditions": {"warning": "Do not rely on these times: a reason."}}
        )
    )
    text = report(tmp_path)
    assert "| race | failed | 2 | 60 | ValueError: a \\| b |" in text
    assert "## Training steps\n\nNot there (JSONDecodeError" in text
    assert "\n\nreplicas: Do not rely on these times: a reason.\n\n## Parts" in text
    assert "| eager | 3 (1.00, 1.00 to 1.00) |" in text
    assert "## The compiled step\n\nNot there (FileNotFoundError" in text


def test_ratios_are_medians_of_ratios_of_one_round():
    rounds = [{"xpnet, eager": a, "PyTorch, eager": b} for a, b in [(1.0, 4.0), (2.0, 4.0), (10.0, 5.0)]]
    found = compared(rounds)
    assert found["base"] == "xpnet, eager"
    assert found["step_us"] == {"xpnet, eager": 2.0, "PyTorch, eager": 4.0}
    assert found["ratio"] == {"xpnet, eager": 1.0, "PyTorch, eager": 2.0}
    assert found["ratio_range"]["PyTorch, eager"] == (0.5, 4.0)


def test_a_contender_that_dropped_out_is_not_compared():
    rounds = [{"xpnet, compiled": 1.0, "xpnet, eager": 2.0}, {"xpnet, eager": 4.0}]
    assert compared(rounds)["ratio"] == {"xpnet, eager": 1.0}
    assert compared([{}])["base"] is None


@pytest.mark.parametrize(
    ("names", "nobody"), [([], True), (["xpnet, on the CPU"], True), (["xpnet, on the CPU", "JAX, scan"], False)]
)
def test_a_race_in_which_none_trained_on_the_device_is_none(names, nobody):
    assert none_trained(CUDA_CONTENDERS, names, "cuda") is nobody


def test_ratios_of_replicas_are_to_the_first_count():
    found = replicas.compared([[1.0, 2.0], [2.0, 6.0], [1.0, 8.0]], [1, 8])
    assert found["8"] == {"step_us": 6.0, "ratio": 3.0, "ratio_range": (2.0, 8.0)}


def test_seconds_to_a_goal_count_from_the_first_epoch_that_reached_it():
    rows = [{"epoch": k, "seconds": 0.5, "test_accuracy": a} for k, a in enumerate((0.9, 0.98, 0.96, 0.985), 1)]
    assert seconds_to(rows, (0.97, 0.98, 0.985, 0.99)) == {0.97: (2, 1.0), 0.98: (2, 1.0), 0.985: (4, 2.0)}


def test_a_ceiling_that_failed_says_why():
    found = {"gpu": "A GPU", "compute_capability": "70", "memory_gib": 16.0, "fp32_flops": 1.5e13}
    text = ceilings.table(found | {"bf16_flops": "CUBLASError: not supported"})
    assert "| matrix product, fp32 | 15 TFLOP/s |" in text
    assert "| matrix product, bf16 | CUBLASError: not supported |" in text
    assert "| copy, read and written | not measured |" in text


@pytest.mark.parametrize(
    ("program", "reason"),
    [("import time; time.sleep(60)", "no answer in 1 s"), ("raise SystemExit('no GPU')", "ended with code 1: no GPU")],
)
def test_a_contender_without_an_answer_has_failed(tmp_path, monkeypatch, program, reason):
    monkeypatch.setattr("host.PEERS", tmp_path)
    (tmp_path / "steps.py").write_text(program)
    remote = Remote(Entry("one", "steps.py", "eager", "numpy"), tmp_path, patience=1.0)
    try:
        with pytest.raises(FailedError, match=reason):
            remote.ask("start", problem="", device="cpu")
    finally:
        remote.close()
