"""Two commits set against each other: is one slower than the other, beyond noise?

    python bench/compare.py [BASE] [OTHER] [--suites race estimators core] [--pairs 12] [--most-pairs 60] [--minutes M]
        [--confidence 0.99] [--interest 2] [--json FILE]

BASE is HEAD by default, and OTHER is `.`, the working tree as it is. Both are copied into a temporary folder, and xpnet
is imported from there: nothing is installed. What is measured, and the programs that measure it, are those beside this
file for both.

    race         training steps of "xpnet, compiled" (--networks, --optimizers, --data, --variants, --dtypes), and with
                 --zeros also of those whose products leave out no zeros
    estimators   `fit` and `predict` of bench/peers/estimators.py (--problems, --epochs)
    core         pytest-benchmark's medians of bench/test_core.py (--select EXPRESSION, as pytest's -k)

Two clocks run: the time that passes, and the processor time of all threads, which other processes disturb far less, and
which does not see where threads wait for each other. --clock says which one decides when to end, and the exit code;
pytest-benchmark reads that one alone.

The unit is a pair: two new processes, one of each commit. A process differs from the next of the same commit, by where
its memory lies, more than its turns differ; so pairs count, and not turns. In a pair of the race, turns follow as A B B
A, and in the next pair as B A A B: what changes steadily cancels, and so does being first. A turn is the same number of
steps for both, after some that are not timed.

A ratio is OTHER's time over BASE's. Each benchmark has a bootstrap interval of the median ratio of its pairs, and one
of these verdicts, with D the smallest change of interest (--interest, in per cent):

    no change           the interval lies within 1 / (1 + D) and 1 + D
    slower, faster      the interval is on one side of 1, and the median ratio beyond 1 + D, or 1 / (1 + D)
    too noisy to tell   anything else, and too few pairs for an interval of that confidence: fewer than 8 for 99 %

A benchmark gets --pairs pairs, and then more until its interval is no wider than D or it has --most-pairs, or until
--minutes have passed. When it ends depends on the interval's width alone, and not on where the interval lies.

Exit codes: 0; 1 where a benchmark is slower or has failed; 3 where none is, and one is too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too
from contest import DTYPES, LEARNING_RATES, VARIANTS, Problem, data_for, made_problem
from host import (
    BASE,
    CONTENDERS,
    PATIENCE,
    WITH_ZEROS,
    FailedError,
    LeftOutError,
    Remote,
    check_folder,
    environment,
    markdown,
    mnist_rows,
    scratch,
)
from networks import NETWORKS, PROBLEMS
from surroundings import in_words, noted, surroundings, write_results

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
SUITES = ("race", "estimators", "core")
RESAMPLES = 10_000
PIECE = 0.012  # seconds that a call of steps takes, or longer
WARM, TIMED = 2, 6  # calls of a turn: the first is up to 4 % slower, the third is not
PAUSE = 0.01  # seconds before a turn: threads spin a while before they sleep
SETTINGS = ("clock", "pairs", "most_pairs", "confidence", "interest", "data")  # that go with the numbers
VERDICTS = NO_CHANGE, FASTER, SLOWER, NOISY = "no change", "faster", "slower", "too noisy to tell"


@dataclass(frozen=True)
class Side:
    """One of two commits.

    Attributes:
        name: as it was given.
        commit: its full name; of the working tree, that of HEAD.
        changed: whether files of xpnet differ from the commit.
        folder: xpnet is imported from there.
    """

    name: str
    commit: str
    changed: bool
    folder: Path


CLOCKS = ("wall", "processor")

Values = Sequence[float] | np.ndarray[Any, Any]
Pair = tuple[float, float]  # seconds of BASE and of OTHER
# A pair for each benchmark and clock, of both sides; the number is that of the side that begins.
Measure = Callable[[Sequence[Side], int], dict[str, dict[str, Pair]]]


@dataclass
class Found:
    """The pairs of a benchmark by clock, in the order in which they were measured, and which side was first."""

    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    first: list[int] = field(default_factory=list)

    def ratios(self, clock: str) -> list[float]:
        """Return OTHER's times over BASE's."""
        return [other / base for base, other in self.pairs[clock]]


def bootstrap_interval(ratios: Values, confidence: float, resamples: int = RESAMPLES) -> Pair:
    """Return the percentile bootstrap interval of the median of ratios, the same each time."""
    values = np.asarray(ratios, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.median(values[drawn], axis=1), (tail, 1.0 - tail))
    return float(low), float(high)


def verdict(ratio: float, low: float, high: float, interest: float) -> str:
    """Return the verdict on a median ratio with its interval; `interest` is the smallest change, as a share."""
    most = 1.0 + interest
    if low > 1.0 and ratio >= most:
        return SLOWER
    if high < 1.0 and ratio <= 1.0 / most:
        return FASTER
    return NO_CHANGE if low >= 1.0 / most and high <= most else NOISY


def judged(ratios: Values, confidence: float, interest: float, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return median, interval and verdict of ratios."""
    ratio = float(np.median(ratios))
    low, high = bootstrap_interval(ratios, confidence, resamples)
    said = verdict(ratio, low, high, interest) if len(ratios) >= fewest(confidence) else NOISY
    return {"ratio": ratio, "interval": (low, high), "verdict": said}


def fewest(confidence: float) -> int:
    """Return how many values must be there for an interval of their median: all lie on one side of it by 2^(1 - n)."""
    return 1 + math.ceil(math.log2(1.0 / (1.0 - confidence)))


def is_narrow(interval: Pair, interest: float) -> bool:
    """Return whether an interval is no wider than the smallest change of interest."""
    low, high = interval
    return high - low <= interest


def turns(first: int) -> tuple[int, ...]:
    """Return the order of a pair's turns: A B B A, or B A A B."""
    return first, 1 - first, 1 - first, first


def checked_out(name: str, folder: Path) -> Side:
    """Copy xpnet of a commit, or of the working tree (`.`), into a folder."""
    folder.mkdir()
    try:
        commit = _git("rev-parse", "--verify", "HEAD" if name == "." else f"{name}^{{commit}}").decode().strip()
    except FailedError as reason:
        raise FailedError(f"there is no commit {name!r}") from reason
    if name == ".":
        listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "xpnet").decode().split("\0")
        for file in filter(None, listed):
            if (ROOT / file).is_file():  # a deleted one is still listed
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file)
    else:
        archive = folder / "xpnet.tar"
        archive.write_bytes(_git("archive", commit, "xpnet"))
        shutil.unpack_archive(archive, folder, filter="data")
        archive.unlink()
    look = [sys.executable, "-P", "-c", "from importlib.util import find_spec; print(find_spec('xpnet').origin)"]
    seen = subprocess.run(look, env=environment(folder), capture_output=True, text=True, check=False)
    if Path(seen.stdout.strip()).resolve() != (folder / "xpnet" / "__init__.py").resolve():
        raise FailedError(f"{name}: xpnet would be imported from {seen.stdout.strip() or seen.stderr.strip()}")
    changed = name == "." and bool(_git("status", "--porcelain", "--", "xpnet"))
    return Side(name, commit, changed, folder)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    if done.returncode:
        raise FailedError(f"git {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def race(name: str, problem: Problem, contender: str, folder: Path) -> Measure:
    """Return the measure of a training step, a mean of two turns on each side."""
    file = folder / f"{name}.npz"
    problem.save(file)
    entry = next(entry for entry in CONTENDERS if entry.name == contender)
    piece = 0  # steps; the same for all pairs

    def measure(sides: Sequence[Side], first: int) -> dict[str, dict[str, Pair]]:
        nonlocal piece
        with ExitStack() as stack:
            workers: dict[int, Remote] = {}
            for side in (first, 1 - first):
                workers[side] = Remote(entry, folder, PATIENCE, sides[side].folder)
                stack.callback(workers[side].close)
                workers[side].tell("start", problem=str(file), device="cpu")
            for worker in workers.values():
                worker.hear()
            for side in (first, 1 - first):
                workers[side].ask("timed_pieces", count=1, piece=4)  # compiles
                piece = piece or _steps_of(PIECE, workers[side])
            times: dict[str, tuple[list[float], list[float]]] = {clock: ([], []) for clock in CLOCKS}
            for side in turns(first):
                time.sleep(PAUSE)
                spent = workers[side].ask("timed_pieces", count=WARM + TIMED, piece=piece)
                for clock in CLOCKS:
                    times[clock][side].append(statistics.median(spent[clock][WARM:]) / 1e6)
        found = {clock: (geometric_mean(base), geometric_mean(other)) for clock, (base, other) in times.items()}
        return {name: found}

    return measure


def _steps_of(seconds: float, worker: Remote) -> int:
    """Return how many steps take so long, or longer: a power of 2, so that the data go round evenly."""
    spent = min(worker.ask("timed_pieces", count=4, piece=4)["wall"]) / 1e6
    return int(2 ** max(0, math.ceil(math.log2(seconds / spent))))


def estimator(problem: str, epochs: int | None, data_dir: str | None) -> Measure:
    """Return the measure of an estimator's `fit` and `predict`."""

    def measure(sides: Sequence[Side], first: int) -> dict[str, dict[str, Pair]]:
        spent: list[dict[str, float]] = [{}, {}]
        for side in (first, 1 - first):
            words = ["--run", "xpnet", json.dumps([problem, epochs, data_dir])]
            found = json.loads(_output([str(BENCH / "peers" / "estimators.py"), *words], sides[side].folder))
            spent[side] = {"wall": found["seconds"], "processor": found["processor"]}
        base, other = spent
        return {problem: {clock: (base[clock], other[clock]) for clock in CLOCKS}}

    return measure


def core(select: str, clock: str, folder: Path) -> Measure:
    """Return the measure of pytest-benchmark's medians."""

    def measure(sides: Sequence[Side], first: int) -> dict[str, dict[str, Pair]]:
        found: list[dict[str, float]] = [{}, {}]
        for side in (first, 1 - first):
            file = folder / "benchmark.json"
            words = ["-m", "pytest", str(BENCH / "test_core.py"), f"--rootdir={ROOT}", "-q", "-p", "no:cacheprovider"]
            words += ["-m", "not cuda", "-k", select, f"--benchmark-json={file}", "--benchmark-max-time=0.3"]
            words += ["--benchmark-timer=time.process_time"] if clock == "processor" else []
            _output(words, sides[side].folder)
            for one in json.loads(file.read_text(encoding="utf-8"))["benchmarks"]:
                found[side][f"{one['group']}: {one['name']}"] = float(one["stats"]["median"])
        base, other = found
        if base.keys() != other.keys():
            raise FailedError(f"of one side alone: {', '.join(sorted(base.keys() ^ other.keys()))}")
        return {name: {clock: (base[name], other[name])} for name in base}

    return measure


def _output(words: list[str], packages: Path) -> str:
    """Return what Python prints that imports xpnet from a folder."""
    done = subprocess.run(
        [sys.executable, *(["-P"] if words[0] == "-m" else []), *words],
        env=environment(packages),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        last = [*done.stdout.strip().splitlines(), *done.stderr.strip().splitlines()][-1:]
        raise FailedError(f"ended with code {done.returncode}: {' '.join(last)}")
    return done.stdout


def compare(
    measures: dict[str, Measure], sides: Sequence[Side], options: argparse.Namespace
) -> tuple[dict[str, Found], dict[str, str]]:
    """Measure pairs of all benchmarks in turn, until each is settled; return them, and who failed and why."""
    found: dict[str, dict[str, Found]] = {name: {} for name in measures}
    failed: dict[str, str] = {}
    end = time.monotonic() + 60.0 * options.minutes
    number = 0
    waiting = list(measures)
    while waiting and (number == 0 or time.monotonic() < end):
        for name in list(waiting):
            try:
                pairs = measures[name](sides, number % 2)
            except KeyboardInterrupt:  # the pairs until now are told
                failed[name] = "interrupted"
                waiting.clear()
                break
            except (FailedError, LeftOutError) as reason:
                failed[name] = str(reason)
                waiting.remove(name)
                continue
            for benchmark, pair in pairs.items():
                one = found[name].setdefault(benchmark, Found())
                for clock, times in pair.items():
                    one.pairs.setdefault(clock, []).append(times)
                one.first.append(number % 2)
            if _settled(list(found[name].values()), number + 1, options):
                waiting.remove(name)
        number += 1
        print(f"\r{number} pairs, {len(waiting)} of {len(measures)} go on", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: one for group in found.values() for name, one in group.items()}, failed


def _settled(found: list[Found], number: int, options: argparse.Namespace) -> bool:
    if number < options.pairs:
        return False
    intervals = [bootstrap_interval(one.ratios(options.clock), options.confidence) for one in found]
    return number >= options.most_pairs or all(is_narrow(one, options.interest / 100) for one in intervals)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def table(results: list[dict[str, Any]], confidence: float) -> str:
    """Return a line for each benchmark and clock."""
    rows = []
    for one in results:
        for clock, pairs in one["pairs"].items():
            found = one[clock]
            base, other = (duration(statistics.median(column)) for column in zip(*pairs, strict=True))
            interval = "{:.3f} to {:.3f}".format(*found["interval"])
            row = [one["benchmark"], clock, base, other, f"{found['ratio']:.3f}", interval, str(len(pairs))]
            rows.append([*row, found["verdict"]])
    return markdown(
        ["benchmark", "clock", "base", "other", "ratio", f"{confidence:.3g} interval", "pairs", "verdict"], rows
    )


def exit_code(verdicts: Sequence[str], failed: dict[str, str]) -> int:
    """Return 1 where one is slower or has failed, 3 where none is and one is too noisy, else 0."""
    if failed or SLOWER in verdicts:
        return 1
    return 3 if NOISY in verdicts else 0


def chosen_measures(options: argparse.Namespace, folder: Path) -> dict[str, Measure]:
    """Return the measures of the suites."""
    measures: dict[str, Measure] = {}
    if "race" in options.suites:
        mnist = mnist_rows(options.data_dir) if options.data == "mnist" else None
        contenders = {BASE: "", WITH_ZEROS: ", zeros not left out"} if options.zeros else {BASE: ""}
        heats = product(options.variants, options.dtypes, options.optimizers, options.networks)
        for variant, dtype, optimizer, network in heats:
            sizes, batch_size = NETWORKS[network]
            data = data_for(sizes, options.data)
            problem = made_problem(sizes, batch_size, optimizer, data, variant, dtype, mnist)
            for contender, words in contenders.items():
                name = f"{network}, {optimizer}, {variant}, {dtype}{words}"
                measures[name] = race(name, problem, contender, folder)
    if "estimators" in options.suites:
        for problem in options.problems:
            measures[problem] = estimator(problem, options.epochs, options.data_dir)
    if "core" in options.suites:
        measures["core"] = core(options.select, options.clock, folder)
    return measures


def main() -> int:
    """Compare, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="HEAD", help="a commit, or . for the working tree (HEAD)")
    parser.add_argument("other", nargs="?", default=".", help="a commit, or . for the working tree (.)")
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=["race"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES))
    parser.add_argument("--data", choices=("random", "mnist"), default="random", help="of the race; mnist: and tables")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"], help="as in bench/peers/race.py")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--zeros", action="store_true", help="also with no zeros left out")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--epochs", type=int, help="of the estimators, at most")
    parser.add_argument("--data-dir", default=os.environ.get("XPNET_DATA_DIR"), help="with MNIST in it")
    parser.add_argument("--select", default="", metavar="EXPRESSION", help="benchmarks of the core (all)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="that decides")
    parser.add_argument("--pairs", type=int, default=12, help="at least")
    parser.add_argument("--most-pairs", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no pair is begun")
    parser.add_argument("--confidence", type=float, default=0.99, help="of each interval")
    parser.add_argument("--interest", type=float, default=2.0, help="the smallest change of interest, in per cent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    if not 0.5 <= options.confidence < 1.0:
        parser.error(f"--confidence must be from 0.5 to below 1, got {options.confidence:g}")
    least = fewest(options.confidence)
    if not least <= options.pairs <= options.most_pairs:
        parser.error(
            f"--pairs must be from {least} (for that confidence) to --most-pairs, got {options.pairs} and"
            f" {options.most_pairs}"
        )
    if options.minutes < 0.0:
        parser.error(f"--minutes must be at least 0, got {options.minutes:g}")
    check_folder(parser, options.json)
    if not options.interest > 0.0:
        parser.error(f"--interest must be above 0, got {options.interest:g}")
    with scratch() as folder:
        try:
            # Paths of one length: the size of the environment moves the stack.
            sides = [checked_out(name, folder / letter) for name, letter in ((options.base, "a"), (options.other, "b"))]
            measures = chosen_measures(options, folder)
        except (FailedError, ImportError, OSError, ValueError) as reason:
            parser.error(str(reason))
        about = surroundings()
        found, failed = compare(measures, sides, options)
    results: list[dict[str, Any]] = [
        {"benchmark": name}
        | {clock: judged(one.ratios(clock), options.confidence, options.interest / 100) for clock in one.pairs}
        | {"pairs": one.pairs, "first": one.first}
        for name, one in found.items()
    ]
    for side, role in zip(sides, ("base", "other"), strict=True):
        print(f"{role}: {side.name}, {side.commit}{', with changes' if side.changed else ''}")
    print(in_words(noted(about)), table(results, options.confidence), sep="\n\n")
    for name, why in failed.items():
        print(f"failed: {name}: {why}")
    if options.json:
        settings = {name: getattr(options, name) for name in SETTINGS}
        compared = [{"name": s.name, "commit": s.commit, "changed": s.changed} for s in sides]
        write_results(options.json, about, settings | {"sides": compared, "results": results, "failed": failed})
    return exit_code([one[options.clock]["verdict"] for one in results], failed)


if __name__ == "__main__":
    sys.exit(main())
