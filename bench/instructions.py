"""Instructions of a training step, counted by valgrind's callgrind: a change of speed that noise does not reach.

    python bench/instructions.py                  compare with the stored count; exit code 1 where there are more
    python bench/instructions.py --renew          count anew, and store

Steps of 30-100-2 at batch 200 with Adam, on one thread: compiled, and eager. Two runs of different lengths are counted,
and their difference is divided by that of their steps, so that start and calls fall out. Kernels are fixed, since
valgrind knows no AVX-512: OpenBLAS's for Haswell, and LLVM's level x86-64-v3; NumPy takes AVX2 by itself there.

Compared are all instructions, and of eager steps, where the BLAS takes as many as before, those outside of it. A
compiled step has no BLAS, and the same instructions each time, most of them in products: 0.2 % more are an error, and
1 % of an eager step. Counts depend on the versions of Python, NumPy, llvmlite and valgrind: where one is not that of
the stored count, nothing is compared, and the program says so, as where there is no valgrind.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too
from contest import LEARNING_RATES, Problem, he_normal
from host import environment, markdown, scratch
from networks import NETWORKS
from surroundings import in_words, noted, surroundings, write_results

STORED = Path(__file__).resolve().parent / "results" / "instructions.json"
NETWORK = "30-100-2 batch 200"
WAYS = {"compiled": 0.2, "eager": 1.0}  # per cent more than stored that pass
LENGTHS = (8, 40)  # steps
KERNELS = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1", "XPNET_LLVM_CPU": "x86-64-v3"}
GROUPS = {  # of libraries, by a part of their names; what LLVM made lies in none
    "xpnet's own code": r"^\?\?\?$",
    "Python": r"python3[\d.]*$|libpython|_ctypes|libffi",
    "NumPy": r"_multiarray_umath",
    "BLAS": r"openblas|libblas|libmkl",
}
SAME_BLAS = 0.01  # relative difference up to which the BLAS was asked for the same products
PATIENCE = 300.0  # seconds; 20 on an idle processor

# valgrind's client request, which any other processor takes for nothing: rol rdi by 3, 13, 61 and 51, xchg rbx, rbx.
REQUEST = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
DUMP, ZERO, START = (ord("C") << 24 | ord("T") << 16 | number for number in (0, 1, 4))


def requester() -> Any:
    """Return a function that makes a request of callgrind; it returns 0."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(REQUEST)
    held = ctypes.c_char.from_buffer(memory)
    call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(ctypes.addressof(held))

    def request(number: int) -> int:
        words = (ctypes.c_ulong * 6)(number)
        assert held is not None  # the code lives as long as this function
        return int(call(ctypes.addressof(words)))

    return request


def train() -> None:
    """Take steps, of each way and length; callgrind writes what each took."""
    from xpnet_steps import XpnetSteps

    from xpnet.training import runner

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread
    runner.CALLBACK_SECONDS = 1e9  # steps of a call: as many as there are, however slow they are here
    sizes, batch_size = NETWORKS[NETWORK]
    rng = np.random.default_rng(0)
    order = np.arange(max(LENGTHS) * batch_size).reshape(-1, batch_size)
    x, t = rng.integers(0, 256, (order.size, sizes[0]), np.uint8), rng.integers(0, sizes[-1], order.size)
    problem = Problem(tuple(sizes), batch_size, "adam", LEARNING_RATES["adam"], x, t, he_normal(sizes))
    takers = {way: XpnetSteps(problem, way) for way in WAYS}
    for taker in takers.values():
        for _ in range(2):  # a call takes twice the steps of the one before, up to all
            taker.take(order)
    request = requester()
    gc.disable()  # it would fall into one length and not into the other
    request(START)
    for taker in takers.values():
        taker.take(order[:2])
        request(ZERO)
        for length in LENGTHS:
            taker.take(order[:length])
            request(DUMP)


def by_library(lines: Iterable[str]) -> Counter[str]:
    """Return the instructions in each library, from a file of callgrind.

    https://valgrind.org/docs/manual/cl-format.html: the line after "calls=" has those of the called function.
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library, called = "", False
    for line in lines:
        named = re.match(r"(c?ob)=\((\d+)\)(?: (.*))?$", line.rstrip("\n"))
        if named:
            if named[3]:
                names[named[2]] = named[3]
            if named[1] == "ob":
                library = names[named[2]]
        elif line.startswith("calls="):
            called = True
        elif line[:1] in "+-*0123456789" and line.strip():
            if not called:
                found[library] += int(line.split()[-1])
            called = False
    return found


def grouped(found: Counter[str]) -> dict[str, int]:
    """Return the instructions of groups of libraries."""
    groups = dict.fromkeys([*GROUPS, "others"], 0)
    for library, count in found.items():
        name = next((name for name, pattern in GROUPS.items() if re.search(pattern, library)), "others")
        groups[name] += count
    return groups


def counted() -> dict[str, dict[str, float]]:
    """Return instructions a step by way and group."""
    variables = environment() | KERNELS | {"PYTHONHASHSEED": "0"}
    words = [sys.executable, __file__, "--train"]
    run: dict[str, Any] = {"env": variables, "check": True, "capture_output": True, "timeout": PATIENCE}
    subprocess.run(words, **run)  # so that the compiled code is in the cache
    with scratch() as folder:
        out = folder / "out"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        subprocess.run([*valgrind, *words], **run)
        files = [out.with_name(f"out.{number}") for number in range(1, len(WAYS) * len(LENGTHS) + 1)]
        parts = [grouped(by_library(file.read_text(errors="replace").splitlines())) for file in files]
    steps = LENGTHS[1] - LENGTHS[0]
    return {
        way: {name: (parts[2 * k + 1][name] - parts[2 * k][name]) / steps for name in parts[0]}
        for k, way in enumerate(WAYS)
    }


def versions() -> dict[str, str]:
    """Return the versions that a count depends on."""
    words = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "Python": sys.version,  # with its compiler
        "NumPy": version("numpy"),
        "llvmlite": version("llvmlite"),
        "valgrind": words.strip(),
    }


def why_not() -> str | None:
    """Return why nothing can be counted here; None where it can."""
    if shutil.which("valgrind") is None:
        return "there is no valgrind"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"not on {platform.system()} {platform.machine()}"
    return None


def changes(stored: dict[str, dict[str, float]], found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the relative change of a step's instructions by way.

    It is of all, and where the BLAS has as many as before, of the others; else, products went from one to the other.
    """
    compared = {}
    for way, now in found.items():
        before = stored[way]
        compared[way] = sum(now.values()) / sum(before.values()) - 1.0
        if before["BLAS"] and abs(now["BLAS"] - before["BLAS"]) <= SAME_BLAS * before["BLAS"]:
            outside, outside_now = (sum(one.values()) - one["BLAS"] for one in (before, now))
            compared[f"{way}, without the BLAS"] = outside_now / outside - 1.0
    return compared


def differing(stored: dict[str, str], here: dict[str, str]) -> str:
    """Return which versions are not those of the stored count, in words; nothing where all are."""
    pairs = {name: (one, stored.get(name)) for name, one in here.items()}
    return ", ".join(f"{name} is {one}, not {before}" for name, (one, before) in pairs.items() if one != before)


def table(stored: dict[str, dict[str, float]] | None, found: dict[str, dict[str, float]]) -> str:
    """Return instructions a step, a line for each way and group, beside those stored."""

    def with_sum(groups: dict[str, float]) -> dict[str, float]:
        return groups | {"all": sum(groups.values())}

    rows = []
    for way, groups in found.items():
        for name, count in with_sum(groups).items():
            before = "" if stored is None else f"{with_sum(stored[way])[name]:,.0f}"
            rows.append([f"{way}: {name}", before, f"{count:,.0f}"])
    return markdown(["instructions a step", "stored", "now"], rows)


def main() -> int:
    """Count, compare or store, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", action="store_true", help="store the count")
    parser.add_argument("--json", type=Path, default=STORED, metavar="FILE", help="the stored count")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train()
        return 0
    reason = why_not()
    if reason:
        print(f"left out: instructions are not counted: {reason}")
        return 0
    stored = None if options.renew else json.loads(options.json.read_text(encoding="utf-8"))
    here = versions()
    other = "" if stored is None else differing(stored["counted_with"], here)
    if other:
        print(f"left out: instructions are not compared: {other}; bench/instructions.py --renew counts them anew")
        return 0
    about = surroundings()
    found = counted()
    print(in_words(noted(about)), table(stored and stored["instructions"], found), sep="\n\n")
    if stored is None:
        write_results(options.json, about, {"counted_with": here, "kernels": KERNELS, "instructions": found})
        return 0
    more = changes(stored["instructions"], found)
    bounds = {what: WAYS[what.partition(",")[0]] / 100 for what in more}
    for what, change in more.items():
        print(f"{what}: {change:+.2%}{'; --renew stores the smaller count' if change < -bounds[what] else ''}")
    return int(any(change > bounds[what] for what, change in more.items()))


if __name__ == "__main__":
    sys.exit(main())
