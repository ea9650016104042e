"""Fuzz the readers of files, guided by coverage: an input that reaches a new arc is kept, and mutated further.

    python scripts/fuzz.py [--seconds 60] [--readers NAME ...] [--seed 0]

An arc is two lines of Python that ran one after the other, in xpnet or in what it calls. A file must be read, or be
refused as tests/test_fuzz_readers.py says. The result is a line of JSON for each reader; with coverage.py, it has the
branches of the reader's functions, and those that no file took. Status 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import json
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from surroundings import surroundings

WORDS = [*rb""" -1 0 1e999 0.5 99999999999999999999 null true [] {} "" [[]] '|O8' a.b = """.split(), b"\n"]
TOKENS = re.compile(rb'"[^"]*"|\'[^\']*\'|-?\d[\d.e+-]*|\w+|[^\w\s]')
NUMBERS = re.compile(rb"-?\d+(\.\d+)?(e[+-]?\d+)?")
SIZES = [number.to_bytes(4, order) for number in (1, 255, 2**16, 2**31, 2**32 - 1) for order in ("big", "little")]
Arc = tuple[object, int, int]  # code, and two of its lines
Input = tuple[int, bytes]  # number of a form, and what a file is made of


def mutated(choose: random.Random, content: bytes, other: bytes) -> bytes:
    """A copy of an input with one to four damages; some are parts of another input."""
    for _ in range(choose.choice([1, 1, 2, 4])):
        start = choose.randint(0, len(content))
        end = min(len(content), start + choose.choice([1, 1, 2, 4, 64]))
        kind = choose.choice([None, None, TOKENS, NUMBERS])
        spans = [found.span() for found in kind.finditer(content)] if kind else []
        start, end = choose.choice(spans) if spans else (start, end)
        some = choose.randint(0, len(other))
        new = [b"", choose.randbytes(end - start), choose.choice(SIZES), choose.choice(WORDS), content[start:end] * 3]
        new += [other[some : some + end - start], choose.choice(TOKENS.findall(other) or [b""])]
        if spans and kind is NUMBERS:
            near = float(content[start:end]) + choose.choice([-1, 1])
            new = [b"0", b"1", b"%g" % near, *choose.choices(WORDS, k=2)]
        content = content[:start] + choose.choice(new) + content[end:] * (choose.random() > 0.02)
    return content[: 2**14]


def arcs_of(call: Callable[[], object], arcs: set[Arc]) -> None:
    """Call a function, and add the arcs that it takes."""

    def enter(frame: Any, event: str, given: Any) -> Any:
        code, last = frame.f_code, 0

        def line(frame: Any, event: str, given: Any) -> Any:
            nonlocal last
            if event == "line":
                arcs.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(None)


def fuzz(reader: Any, folder: Path, choose: random.Random, cases: Iterable[int]) -> tuple[dict[str, Any], list[Input]]:
    """Return counts and faults, and the inputs that were kept: the valid ones, and those that reached a new arc."""
    todo = [(form, content) for form, (valid, _) in enumerate(reader.forms) for content in valid]
    found: dict[str, Any] = {"cases": 0, "valid": len(todo), "faults": {}}
    arcs: set[Arc] = set()
    kept: list[Input] = []
    for case in cases:
        if case < len(todo):
            form, content = todo[case]
        else:
            form, content = choose.choice(kept)
            content = mutated(choose, content, choose.choice(kept)[1])
        before = len(arcs)
        try:
            arcs_of(partial(reader.check, folder, form, content), arcs)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
            found["faults"].setdefault(what, [str(error)[:500], form, content.hex()])
        if case < len(todo) or len(arcs) > before:
            kept.append((form, content))
        found["cases"] += 1
    return found | {"kept": len(kept), "arcs": len(arcs)}, kept


def branches(reader: Any, folder: Path, kept: list[Input]) -> dict[str, Any]:
    """Return the number of branches of a reader's functions, of those taken, and those never taken, by function."""
    try:
        import coverage
    except ImportError:
        return {}
    measured = coverage.Coverage(branch=True, data_file=None, source=["xpnet"], config_file=False)
    with measured.collect():
        for form, content in kept:
            with contextlib.suppress(Exception):
                reader.check(folder, form, content)
    report = folder / "coverage.json"
    with contextlib.redirect_stdout(io.StringIO()):
        measured.json_report(outfile=str(report))
    taken, never = 0, {}
    for path, found in json.loads(report.read_text(encoding="utf-8"))["files"].items():
        pattern = reader.functions.get(path.partition("xpnet/")[2], "$.")
        for name, one in found["functions"].items():
            if name and re.match(pattern, name) and one["executed_lines"]:
                taken += len(one["executed_branches"])
                if one["missing_branches"]:
                    never[f"{path}: {name}"] = one["missing_branches"]
    return {"branches": taken + sum(map(len, never.values())), "taken": taken, "never": never}


def main() -> int:
    """Fuzz each reader; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--readers", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    broken = False
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as valid:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        made = importlib.import_module("readers").make_readers(Path(valid))
        for one in options.readers or made:
            end = time.monotonic() + options.seconds
            cases = itertools.takewhile(lambda _, end=end: time.monotonic() < end, itertools.count())  # type: ignore[misc]
            found, kept = fuzz(made[one], Path(name), random.Random(options.seed), cases)
            found |= branches(made[one], Path(name), kept) | {"seconds": options.seconds, "seed": options.seed}
            print(json.dumps({"reader": one} | found), flush=True)
            broken = broken or bool(found["faults"])
    print(json.dumps(surroundings()))
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
