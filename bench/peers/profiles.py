"""Where steps spend their time: xpnet's by instruction, PyTorch's and JAX's by operation, each by its own profiler.

    python bench/peers/profiles.py [--networks NAME ...] [--optimizer adam|sgd] [--top 10] [--json FILE]

Each contender is a process of its own, with its own defaults, one after the other, on the problem of the race.

- xpnet: the compiled step, as `xpnet train --plan --times` has it: the mean of the threads, which adds up to the step.
- PyTorch: the eager step, by `torch.profiler`: the time of an operation without that of the operations it calls.
- JAX: the scan, by `jax.profiler`: the time of an operation of XLA without that of those inside of it. Operations that
  run at once add up to more than the step.

A profiler slows what it watches: the time of a step is given without it, and with it. Shares are of the latter.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contest import LEARNING_RATES, Array, Contender, Problem, epoch_order, made_problem
from host import markdown, scratch
from networks import NETWORKS
from surroundings import CLEARED, in_words, surroundings, write_results

SECONDS = 2.0  # of steps before and without the profiler
PIECE = 64  # steps in a call, and under the profiler
PATIENCE = 600.0  # seconds for a contender
CONTENDERS = {"xpnet, compiled": "llvmlite", "PyTorch, eager": "torch", "JAX, scan": "jax"}  # and what they need
LONGEST = 44  # letters of an operation

Row = tuple[str, float]  # an operation, and its seconds in a step
Profile = dict[str, Any]


def xpnet_profile(problem: Problem, batches: Array) -> Profile:
    """Profile xpnet's compiled step."""
    from xpnet_steps import XpnetSteps

    from xpnet.compile import StepTimes
    from xpnet.training.runner import step_table
    from xpnet.training.step import EpochSums

    steps = XpnetSteps(problem, "compiled")
    plain = seconds_of_step(steps, batches)
    count, size = batches.shape
    spans = [slice(k * size, (k + 1) * size) for k in range(count)]
    table = step_table(steps.model.network, steps.trainer.optimizer, steps.trainer.schedule, steps.taken, count)
    times = steps.runner.times(batches.ravel(), spans, table, EpochSums.zeros(steps.model))
    if not isinstance(times, StepTimes):
        raise RuntimeError(times)
    rows: dict[str, float] = defaultdict(float)
    for row in times.rows:
        number = "" if row.number is None else f"[{row.number}] "
        rows[f"{number}{row.text}"] += row.total_seconds / times.threads
    return profile_of(plain, times.step_seconds, rows)


def torch_profile(problem: Problem, batches: Array) -> Profile:
    """Profile PyTorch's eager step."""
    from torch.profiler import ProfilerActivity, profile
    from torch_steps import TorchSteps

    steps = TorchSteps(problem, way="eager")
    plain = seconds_of_step(steps, batches)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        steps.take(batches)
        watched = time.perf_counter() - start
    rows = {one.key: one.self_cpu_time_total / 1e6 / len(batches) for one in profiler.key_averages()}
    return profile_of(plain, watched / len(batches), rows)


def jax_profile(problem: Problem, batches: Array) -> Profile:
    """Profile JAX's scan."""
    import jax
    import jax.numpy as jnp
    from jax_steps import JaxSteps

    steps = JaxSteps(problem, scan=True)
    index = jnp.asarray(batches, jnp.int32)
    text = steps.take_all.lower(steps.state, steps.x, steps.t, index).compile().as_text()
    shapes = dict(re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = (\w+\[[\d,]*\])", text, re.MULTILINE))
    plain = seconds_of_step(steps, batches)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            start = time.perf_counter()
            steps.take(batches)
            watched = time.perf_counter() - start
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    rows: dict[str, float] = defaultdict(float)
    for name, seconds in own_seconds(one for one in events if "hlo_op" in one.get("args", {})):
        rows[f"{name} {shapes.get(name, '')}".strip()] += seconds / len(batches)
    return profile_of(plain, watched / len(batches), rows)


PROFILES: dict[str, Callable[[Problem, Array], Profile]] = dict(
    zip(CONTENDERS, (xpnet_profile, torch_profile, jax_profile), strict=True)
)


def own_seconds(events: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    """Yield the operation of each event of a trace, and its seconds without those of the events inside of it."""
    threads: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        threads[event["pid"], event["tid"]].append(event)
    for of_thread in threads.values():
        around: list[tuple[float, str, list[float]]] = []  # the end of each event that is open, its name, its time
        for event in sorted(of_thread, key=lambda one: (one["ts"], -one["dur"])):
            while around and around[-1][0] <= event["ts"]:
                yield around[-1][1], around.pop()[2][0] / 1e6
            if around:
                around[-1][2][0] -= event["dur"]
            around.append((event["ts"] + event["dur"], event["args"]["hlo_op"], [event["dur"]]))
        yield from ((name, own[0] / 1e6) for _, name, own in around)


def seconds_of_step(steps: Contender, batches: Array) -> float:
    """Take steps for a while; return the seconds of one in the fastest call."""
    best, start = float("inf"), time.perf_counter()
    while (begin := time.perf_counter()) - start < SECONDS:
        steps.take(batches)
        best = min(best, (time.perf_counter() - begin) / len(batches))
    return best


def profile_of(plain: float, watched: float, rows: Mapping[str, float]) -> Profile:
    """Return a profile as JSON values, the longest operation first."""
    ordered = sorted(rows.items(), key=lambda row: -row[1])
    return {"step_seconds": plain, "watched_seconds": watched, "operations": ordered}


def profiled(name: str, problem: Path) -> Profile:
    """Run a contender in a process of its own; return its profile, or why there is none."""
    if find_spec(CONTENDERS[name]) is None:
        return {"left_out": f"{CONTENDERS[name]} is not installed"}
    command = [sys.executable, __file__, "--contender", name, "--problem", str(problem)]
    free = {one: value for one, value in os.environ.items() if one not in CLEARED}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=free)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    found: Profile = json.loads(done.stdout.splitlines()[-1])
    return found


def table(profiles: Mapping[str, Profile], top: int) -> str:
    """Return the operations of each contender side by side, the longest first."""
    there = {name: one for name, one in profiles.items() if "operations" in one}
    header, columns = [], []
    for name, found in there.items():
        header += [f"{name}: {found['step_seconds'] * 1e6:,.0f} µs a step", "µs", "share"]
        whole = found["watched_seconds"]
        rest = found["operations"][top:]
        rows = [*found["operations"][:top], (f"{len(rest)} others", sum(seconds for _, seconds in rest))]
        rows.append(("all, with the profiler", whole))
        columns.append([[_cut(text), f"{one * 1e6:,.1f}", f"{one / whole:.0%}"] for text, one in rows])
    lines = [[cell for column in columns for cell in _at(column, k)] for k in range(max(map(len, columns), default=0))]
    missing = [
        f"- {name}: {one.get('left_out') or one['failed']}" for name, one in profiles.items() if name not in there
    ]
    return "\n".join([markdown(header, lines)] * bool(lines) + missing)


def _at(column: list[list[str]], k: int) -> list[str]:
    return column[k] if k < len(column) else [""] * 3


def _cut(text: str) -> str:
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return f"`{text}`"


def main() -> int:
    """Profile all contenders, print a table for each network, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS)[:2])
    parser.add_argument("--optimizer", choices=LEARNING_RATES, default="adam")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="operations of each (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all operations")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)  # of a process of its own
    parser.add_argument("--problem", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        problem = Problem.load(options.problem)
        batches = epoch_order(len(problem.x), problem.batch_size, 0)[:PIECE]
        print(json.dumps(PROFILES[options.contender](problem, batches)))
        return 0
    around = surroundings()
    found: dict[str, Any] = {"optimizer": options.optimizer, "networks": {}}
    print(in_words(around))
    with scratch() as folder:
        for network in options.networks:
            made_problem(*NETWORKS[network], options.optimizer).save(folder / "problem.npz")
            profiles = {name: profiled(name, folder / "problem.npz") for name in CONTENDERS}
            found["networks"][network] = profiles
            print(f"\n{network}, {options.optimizer}\n\n{table(profiles, options.top)}", flush=True)
    if options.json:
        write_results(options.json, around, found)
    return int(any("failed" in one for profiles in found["networks"].values() for one in profiles.values()))


if __name__ == "__main__":
    raise SystemExit(main())
