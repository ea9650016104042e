"""Surroundings of a measurement, conditions before and during it, and what speaks against believing it.

A benchmark calls `surroundings()` before it measures, `noted()` when it says what it found, and writes its JSON by
`write_results()`, so that each file of results names machine, BLAS kernel, versions, commit and conditions.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from xpnet.commands.doctor import BLAS_VARIABLES, THREAD_VARIABLES
from xpnet.core.device import blas_kernels, processor_name, processor_quota, processors, usable_processors

BENCH = Path(__file__).resolve().parent
CLEARED = (*BLAS_VARIABLES, *THREAD_VARIABLES)  # they hold a library below what the processor has
PACKAGES = (
    "numpy",
    "xpnet",
    "llvmlite",
    "torch",
    "jax",
    "jaxlib",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
    "onnxruntime",
)
CUDA_PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "nvidia-cublas", "nvidia-cublas-cu12", "triton")
NAMED = ("processor", "blas", "versions", "commit", "conditions")  # in each file of results

# Shares of the processors' time from which on times are not to be relied on. One process that computes takes 50 % of
# two processors; an idle machine's services took 0.1 to 0.4 %.
MOST_OTHERS, MOST_STOLEN = 0.05, 0.01
MEASURED = ("../xpnet", "*.py", "peers")  # what a figure depends on; results written before it are none of it
LEAST_FREQUENCY = 0.9  # relative to that before
MOST_LOAD = 0.25  # per processor, where the system does not tell how much time others took

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
CPUFREQ = Path("/sys/devices/system/cpu")


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """Return the surroundings of a measurement that begins now: machine, kernel, versions, commit, conditions."""
    on_cuda = device != "cpu"
    return {
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") if on_cuda else None,
        "processor": processor_name(),
        "blas": blas_kernels(),
        "usable_processors": usable_processors(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES + (CUDA_PACKAGES if on_cuda else ())},
        "commit": _output("git", "-C", str(BENCH), "rev-parse", "HEAD"),
        "changed_since": bool(_output("git", "-C", str(BENCH), "status", "--porcelain", "--", *MEASURED)),
        "cleared_variables": {name: os.environ[name] for name in CLEARED if name in os.environ},
        "conditions": {"before": sample(), "quota": _finite(processor_quota())},
    }


def noted(found: dict[str, Any]) -> dict[str, Any]:
    """Return surroundings with the conditions from `surroundings()` until now, and the warning they are worth."""
    before, quota = (found["conditions"][name] for name in ("before", "quota"))
    during = between(before, sample())
    warning = warning_of(before, during, quota)
    return found | {"conditions": {"before": before, "quota": quota, "during": during, "warning": warning}}


def write_results(path: Path, found: dict[str, Any], content: dict[str, Any]) -> None:
    """Write the results of a benchmark as JSON, with its surroundings and the conditions until now."""
    path.write_text(json.dumps(noted(found) | content, indent=1) + "\n", encoding="utf-8")


def in_words(found: dict[str, Any]) -> str:
    """Return the gist of `surroundings()`; of `noted()`, with the warning in front where there is one."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    commit = f"{found['commit'] or 'unknown'}{', with changes' if found['changed_since'] else ''}"
    gpu = f"{'; '.join(found['gpu'].splitlines())}; " if found.get("gpu") else ""
    processors = f"{found['usable_processors']} processor{'s' * (found['usable_processors'] != 1)} usable"
    kernels = "".join(f", {name} ({kernel})" for name, kernel in found.get("blas", {}).items())
    warning = (found.get("conditions") or {}).get("warning")  # files from before conditions were measured have none
    return (
        f"{f'{warning} ' if warning else ''}"
        f"{gpu}{found['processor']}, {processors}, {found['memory_gib']:.0f} GiB;"
        f" Python {found['python']}, {versions}{kernels}; commit {commit}"
    )


def sample() -> dict[str, Any]:
    """Return what the system tells now; None where it does not tell.

    Of time, `own` is that of this process and its descendants, `busy` that of all processes, and `stolen` that of other
    virtual machines, in seconds of the processors that this process may use. `throttled` counts the periods in which a
    quota was used up, and the seconds that were waited then.
    """
    times = processor_times(_text(PROC / "stat"), processors())
    return {
        "clock": time.monotonic(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "mhz": frequency(),
        "busy": times and times[0],
        "stolen": times and times[1],
        "own": times and own_seconds(_process_lines(), os.getpid()),
        "throttled": throttling(),
    }


def between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions between two samples: shares are of the time of all processors that may be used."""
    seconds = after["clock"] - before["clock"]
    whole = seconds * len(processors())

    def share(name: str) -> float | None:
        return None if before["busy"] is None or not whole else (after[name] - before[name]) / whole

    busy, own, stolen = share("busy"), share("own"), share("stolen")
    throttled = after["throttled"] and [b - a for a, b in zip(before["throttled"], after["throttled"], strict=True)]
    return {
        "seconds": seconds,
        "load": after["load"],
        "mhz": after["mhz"],
        "others": None if busy is None or own is None else max(0.0, busy - own),  # they are counted in ticks
        "stolen": stolen,
        "throttled": throttled,
    }


def warning_of(before: dict[str, Any], during: dict[str, Any], quota: float | None) -> str | None:
    """Return a sentence with the figures that speak against these times; None where nothing does."""
    found = []
    count = len(processors())
    number = f"{count} processor{'s' if count > 1 else ''}"
    if during["others"] is None:
        if before["load"] is not None and before["load"][0] > MOST_LOAD * count:
            found.append(f"the load was {before['load'][0]:.1f} on {number} before")
    elif during["others"] > MOST_OTHERS:
        found.append(f"other processes took {during['others']:.0%} of the time of {number}")
    if during["stolen"] is not None and during["stolen"] > MOST_STOLEN:
        found.append(f"other virtual machines took {during['stolen']:.0%}")
    if during["throttled"] is not None and during["throttled"][0] > 0:
        limit = "a quota" if quota is None else f"a quota of {quota:g} processors' time"
        found.append(f"{limit} was used up {during['throttled'][0]} times, for {during['throttled'][1]:.1f} s")
    if before["mhz"] and during["mhz"] and during["mhz"] < LEAST_FREQUENCY * before["mhz"]:
        found.append(f"the frequency fell from {before['mhz']:,.0f} to {during['mhz']:,.0f} MHz")
    return f"Do not rely on these times: {', '.join(found)}." if found else None


def processor_times(stat: str | None, numbers: Iterable[int]) -> tuple[float, float] | None:
    """Return busy and stolen seconds of some processors since the start of the system, from the text of /proc/stat."""
    wanted = {f"cpu{number}" for number in numbers}
    fields = [line.split() for line in (stat or "").splitlines()]
    rows = [[int(field) for field in row] for name, *row in filter(None, fields) if name in wanted]
    if not rows or len(rows) < len(wanted) or any(len(row) < 8 for row in rows):
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user and nice.
    busy = sum(sum(row[:3]) + sum(row[5:7]) for row in rows)
    return busy / _ticks(), sum(row[7] for row in rows) / _ticks()


def own_seconds(lines: Iterable[str], pid: int) -> float:
    """Return the processor seconds of a process and its descendants, from lines of /proc/PID/stat.

    A process has those of the children that it has waited for, too.
    """
    parents, ticks = {}, {}
    for line in lines:
        head, _, tail = line.rpartition(")")  # a name may have brackets and spaces
        fields = tail.split()
        one = int(head.split()[0])
        parents[one], ticks[one] = int(fields[1]), sum(int(field) for field in fields[11:15])

    def is_own(one: int) -> bool:
        while one in parents and one != pid:
            one = parents[one]
        return one == pid

    return sum(count for one, count in ticks.items() if is_own(one)) / _ticks()


def frequency(folder: Path = CPUFREQ, cpuinfo: Path = PROC / "cpuinfo") -> float | None:
    """Return the mean frequency of the processors in MHz: by cpufreq, else by /proc/cpuinfo."""
    texts = [_text(folder / f"cpu{number}" / "cpufreq" / "scaling_cur_freq") for number in processors()]
    with suppress(ValueError, TypeError):
        return statistics.mean(int(text) / 1000 for text in texts)  # type: ignore[arg-type]
    lines = [line for line in (_text(cpuinfo) or "").splitlines() if line.startswith("cpu MHz")]
    with suppress(ValueError):  # of no line, too
        return statistics.mean(float(line.partition(":")[2]) for line in lines)
    return None


def throttling(root: Path = CGROUPS, process: Path = PROC / "self" / "cgroup") -> list[float] | None:
    """Return how many periods a quota of this process's control groups was used up in, and the seconds waited.

    https://docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.stat`; version 1 has `throttled_time`, in nanoseconds.
    """
    found = []
    for line in (_text(process) or "").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / name.lstrip("/")
        for folder in (group, *group.parents):
            text = _text(folder / "cpu.stat") if folder.is_relative_to(base) else None
            fields = dict(line.split() for line in (text or "").splitlines() if len(line.split()) == 2)
            if "nr_throttled" in fields:
                seconds = int(fields.get("throttled_usec", 0)) / 1e6 + int(fields.get("throttled_time", 0)) / 1e9
                found.append([int(fields["nr_throttled"]), seconds])
    return max(found) if found else None


def _process_lines() -> Iterator[str]:
    for path in PROC.glob("[0-9]*/stat"):
        text = _text(path)  # it may have ended
        if text:
            yield text


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def _text(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return float("nan")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    """Return what a program prints, or nothing where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
