"""The count of a step's instructions: reading callgrind's files, and what is compared with what."""

from __future__ import annotations

import json
import sys
from collections import Counter

import instructions
import pytest
from instructions import by_library, changes, differing, grouped, why_not

# Names are written out once, and are numbers after that; the line behind "calls=" has what the called function took.
CALLGRIND = """\
# callgrind format
version: 1
events: Ir
ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ???
fn=(1) _PyEval_EvalFrameDefault
0 100
cob=(2) /site-packages/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so
cfi=(2) ???
cfn=(2) add
calls=3 0
0 5000
+3 20
fn=(3) other
* 4

ob=(2)
fn=(2)
0 700
calls=1 0
0 9000
ob=(3) ???
fn=(4) 0x0000000004000
0 60
cob=(1)
cfn=(1)
calls=1 +2
-1 8000
ob=(1)
fn=(1)
-2 1
totals: 885
"""


def test_instructions_are_those_of_a_library_itself():
    found = by_library(CALLGRIND.splitlines())
    assert found == {
        "/usr/lib/libpython3.11.so.1.0": 125,
        "/site-packages/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so": 700,
        "???": 60,
    }
    assert sum(found.values()) == 885  # as callgrind has it


def test_libraries_are_put_into_groups():
    names = {
        "???": "xpnet's own code",
        "/usr/bin/python3.12": "Python",
        "/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so": "Python",
        "/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so": "NumPy",
        "/numpy.libs/libscipy_openblas64_-32a4b2a6.so": "BLAS",
        "/usr/lib/x86_64-linux-gnu/libc.so.6": "others",
    }
    for name, group in names.items():
        assert grouped(Counter({name: 3}))[group] == 3


def test_changes_are_of_all_instructions_and_of_those_outside_of_the_blas():
    stored = {"compiled": {"xpnet's own code": 50.0, "BLAS": 0.0}, "eager": {"Python": 100.0, "BLAS": 300.0}}
    found = {"compiled": {"xpnet's own code": 40.0, "BLAS": 0.0}, "eager": {"Python": 120.0, "BLAS": 300.0}}
    assert changes(stored, found) == pytest.approx({"compiled": -0.2, "eager": 0.05, "eager, without the BLAS": 0.2})


def test_products_that_leave_the_blas_are_compared_with_all_others():
    stored = {"compiled": {"xpnet's own code": 100.0, "BLAS": 300.0}}
    assert changes(stored, {"compiled": {"xpnet's own code": 300.0, "BLAS": 0.0}}) == {"compiled": -0.25}


@pytest.fixture
def counts(tmp_path, monkeypatch):
    """Run the program with a stored count of 1,000 and this one; return exit code and output file."""
    here = {"NumPy": "2.0"}
    monkeypatch.setattr(instructions, "versions", lambda: here)
    monkeypatch.setattr(instructions, "why_not", lambda: None)
    file = tmp_path / "stored.json"

    def run(now, *words, way="eager", with_versions=here):
        if not file.exists():
            stored = {way: {"Python": 900.0, "BLAS": 100.0} for way in instructions.WAYS}
            file.write_text(json.dumps({"counted_with": with_versions, "instructions": stored}), encoding="utf-8")
        found = {"compiled": {"Python": 900.0, "BLAS": 100.0}, "eager": {"Python": 900.0, "BLAS": 100.0}}
        found[way] = {"Python": now - 100.0, "BLAS": 100.0}
        monkeypatch.setattr(instructions, "counted", lambda: found)
        monkeypatch.setattr(sys, "argv", ["instructions.py", "--json", str(file), *words])
        return instructions.main()

    return run


@pytest.mark.parametrize(("now", "code"), [(1008.0, 0), (1009.5, 1), (1011.0, 1), (500.0, 0)])
def test_more_instructions_than_the_bound_are_an_exit_code(counts, capsys, now, code):
    assert counts(now) == code
    printed = capsys.readouterr().out
    assert f"eager: {now / 10 - 100:+.2f}%" in printed
    assert ("--renew" in printed) == (now < 990)


@pytest.mark.parametrize(("now", "code"), [(1001.0, 0), (1003.0, 1)])
def test_a_compiled_step_has_the_same_instructions_each_time(counts, now, code):
    assert counts(now, way="compiled") == code


def test_a_renewed_count_is_what_is_compared_with(counts):
    assert counts(1100.0) == 1
    assert counts(1100.0, "--renew") == 0
    assert counts(1100.0) == 0


def test_nothing_is_compared_with_a_count_by_other_versions(counts, capsys):
    assert counts(9999.0, with_versions={"NumPy": "1.9"}) == 0
    assert "left out: instructions are not compared: NumPy is 2.0, not 1.9;" in capsys.readouterr().out
    assert differing({"NumPy": "2.0"}, {"NumPy": "2.0"}) == ""
    assert differing({}, {"valgrind": "3.19"}) == "valgrind is 3.19, not None"


def test_where_there_is_no_valgrind_nothing_is_counted(monkeypatch, capsys):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    assert why_not() == "there is no valgrind"
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    assert instructions.main() == 0
    assert capsys.readouterr().out == "left out: instructions are not counted: there is no valgrind\n"


@pytest.mark.skipif(
    sys.platform != "linux" or instructions.platform.machine() != "x86_64", reason="the code is for Linux on x86-64"
)
def test_a_request_does_nothing_outside_of_valgrind():
    assert instructions.requester()(instructions.ZERO) == 0
