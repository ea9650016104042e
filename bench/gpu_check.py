"""The check of an NVIDIA GPU: parts with time limits, each a process of its own, and one report of all.

    scripts/gpu_check.sh [--quick] [FOLDER]

starts it. A part that fails or is out of time takes nothing from the others; `parts.json` says how each ended, and
`report.md` is written anew after each. `--report` writes it from what FOLDER holds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "peers"))  # last: tests/ has an `estimators` too

import ceilings
import race
import replicas
import whole
from host import environment, markdown, missing
from networks import NETWORKS
from surroundings import in_words, surroundings

import xpnet
from xpnet.core.device import usable_processors
from xpnet.data import load_mnist

ROOT = Path(__file__).resolve().parents[1]
STATED = {"full": 480, "quick": 180}  # seconds at most, from start to end
REPORT_SECONDS = 5  # for all that is no part
GRACE = 4  # seconds of a limit in which a part that was interrupted writes what it has
GOALS = (0.97, 0.98, 0.985)
PEERS = ("xpnet, compiled", "xpnet, compiled, tf32", "xpnet, eager", "PyTorch, graph", "JAX, scan", "xpnet, on the CPU")
RECIPE = (  # reaches 98.5 % in six epochs
    "--hidden 512 512 --batch-norm --dropout 0.2 --label-smoothing 0.1 --schedule one-cycle --lr 0.005 --batch-size 256"
)
SHARDS = 4  # processes of the tests
PLAN_LINES = 60  # of the report


@dataclass
class Part:
    """A part of the check.

    Attributes:
        name: of its files too.
        limit: in seconds.
        commands: processes that run at the same time.
        left_out: the reason why it does not run.
        fine: exit codes of a pass.
        suffix: of the file with its standard output.
    """

    name: str
    limit: float
    commands: list[list[str]]
    left_out: str | None = None
    fine: tuple[int, ...] = (0,)
    suffix: str = ".txt"
    outcome: str = "not reached"
    seconds: float = 0.0
    codes: list[int] = field(default_factory=list)


def parts(out: Path, *, mnist: bool, quick: bool = False, tiny: bool = False) -> list[Part]:
    """Return the parts in their order; a quick check leaves some out, and a tiny one does the least of each."""
    found: list[Part] = []

    def add(name: str, full: float, short: float | None, *arguments: list[Any], **options: Any) -> None:
        """Add a part of one process of Python, or of the `commands` among the options."""
        limit = short if quick else full
        if limit is None:
            options["left_out"] = "not in the quick form"
        command = [sys.executable, *(str(word) for words in arguments for word in words)]
        found.append(Part(name, 600 if tiny else limit or 0, options.pop("commands", [command]), **options))

    def least(words: str, otherwise: str = "") -> list[str]:
        return (words if tiny else otherwise).split()

    def as_json(name: str) -> list[Any]:
        return ["--json", out / f"{name}.json"]

    cuda, patience = ["--device", "cuda"], ["--patience", 600 if tiny else 20]
    data = ["--dataset", "mnist" if mnist else "digits", "--offline"]
    train = ["-m", "xpnet.train", "--require-device", "--seed", 0, *data]
    run = [*train, "--json", "--overwrite", *least("--steps 60"), "--out"]
    add("nvidia-smi", 5, 5, commands=[["nvidia-smi"]])
    add("doctor", 15, 15, ["-m", "xpnet.doctor"])
    add("run-cpu", 15, 10, run, [out / "run-cpu", "--device", "cpu"], suffix=".json")
    add("run-cuda", 30, 30, run, [out / "run-cuda"], cuda, suffix=".json")
    add("same-run", 25, 20, ["scripts/compare_runs.py", out / "run-cpu", out / "run-cuda"], suffix=".json")
    add("plan", 15, 10, train, ["--plan"], cuda)
    add("ceilings", 15, 15, ["bench/ceilings.py"], as_json("ceilings"), least("--size 64 --bytes 4096 --repeat 2"))
    which = ["--networks", *list(NETWORKS)[:: 2 if quick else 1], "--optimizers", "adam", *([] if quick else ["sgd"])]
    count = least("--rounds 1 --seconds 0.001 --piece 1 --checked 2", f"--rounds {3 if quick else 4} --seconds 0.08")
    pixels = ["--data", "mnist" if mnist else "random"]
    add("race", 185, 65, ["bench/peers/race.py"], which, pixels, cuda, count, patience, as_json("race"))
    count = least("--rounds 1 --seconds 0.001 --piece 1 --counts 1 2", "--rounds 4 --seconds 0.1")
    add("replicas", 25, None, ["bench/replicas.py"], cuda, count, as_json("replicas"))

    no_mnist = None if mnist else "needs MNIST: set XPNET_DATA_DIR to a folder that holds it"
    goals = ["--goals", *GOALS, "--contenders", *PEERS, "--epochs", 1 if tiny else 10]
    add("whole", 45, None, ["bench/peers/whole.py"], cuda, goals, patience, as_json("whole"), left_out=no_mnist)
    recipe = [*RECIPE.split(), *least("--steps 20", "--epochs 12")]
    add("accuracy", 20, None, run, [out / "run-accuracy"], cuda, recipe, left_out=no_mnist, suffix=".json")

    needed = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    pytest = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-rfE", "-p", "no:cacheprovider"]
    names = ["tests/test_device.py", "tests/test_trainer_device.py"]
    files = names if tiny else sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("tests/test_*.py"))
    shards = min(SHARDS, usable_processors(), len(files))
    add(
        "tests",
        80,
        None,
        commands=[[*pytest, *files[k::shards]] for k in range(shards)],
        left_out=f"needs {' and '.join(needed)}: pip install 'xpnet[test]'" if needed else None,
        fine=(0, 5),  # 5: no test of these files needs a GPU
    )
    return found


def run_part(part: Part, out: Path) -> None:
    """Run a part, and note how it ended."""
    if part.left_out:
        part.outcome = "left out"
        return
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = environment() | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    start_process = partial(subprocess.Popen, cwd=ROOT, env=variables, start_new_session=True)
    start = time.monotonic()
    processes: list[subprocess.Popen[Any]] = []
    try:
        for k, command in enumerate(part.commands):
            name = part.name if len(part.commands) == 1 else f"{part.name}-{k}"
            with (out / f"{name}{part.suffix}").open("wb") as text, (out / f"{name}.log").open("wb") as log:
                processes.append(start_process(command, stdout=text, stderr=log))
        late = _wait(processes, start + part.limit - GRACE)
        if late:
            _signal(processes, signal.SIGINT)
            _wait(processes, start + part.limit)
    except OSError as error:  # the program is missing
        part.outcome, part.left_out = "left out", f"{error.filename or part.name}: {error.strerror}"
        return
    finally:
        _signal(processes, signal.SIGKILL)  # and what they have started
        part.codes = [process.wait() for process in processes]
        part.seconds = round(time.monotonic() - start, 1)
    passed = set(part.codes) <= set(part.fine) and 0 in part.codes
    part.outcome = "out of time" if late else "passed" if passed else "failed"


def _wait(processes: Iterable[subprocess.Popen[Any]], deadline: float) -> bool:
    """Wait for all until the deadline; return whether one is late."""
    try:
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return True
    return False


def _signal(processes: Iterable[subprocess.Popen[Any]], number: int) -> None:
    """Send a signal to the processes, and to those they have started."""
    for process in processes:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            continue


def report(out: Path) -> str:
    """Return the report on what a folder holds."""
    sections: dict[str, Callable[[Path], str]] = {
        "Parts": _parts_section,
        "One seed on two devices": _same_run_section,
        "Training steps": lambda out: race.tables(_json(out / "race.json")),
        "Replicas": lambda out: replicas.table(_json(out / "replicas.json")),
        "Ceilings": lambda out: ceilings.table(_json(out / "ceilings.json")),
        "Seconds to an accuracy on MNIST": _accuracy_section,
        "The compiled step": _plan_section,
    }
    texts = [f"# xpnet on a GPU\n\n{in_words(_json(out / 'versions.json'))}"]
    texts += [f"{file.stem}: {warning}" for file in sorted(out.glob("*.json")) if (warning := _warning(file))]
    for title, section in sections.items():
        try:
            text = section(out)
        except Exception as error:  # a part that failed has left nothing, or half of it
            text = f"Not there ({type(error).__name__}: {error})."
        texts.append(f"## {title}\n\n{text}")
    return "\n\n".join(texts) + "\n"


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _warning(file: Path) -> str | None:
    """Return why the times in a file are not to be relied on; None where nothing says so."""
    with contextlib.suppress(ValueError, KeyError, TypeError):  # half a file, or one of another kind
        warning: str | None = _json(file)["conditions"]["warning"]
        return warning
    return None


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1].strip("= ")[:160].replace("|", "\\|") if lines else ""


def _parts_section(out: Path) -> str:
    rows = []
    for part in _json(out / "parts.json"):
        names = [part["name"]] if len(part["commands"]) == 1 else [f"{part['name']}-{k}" for k in range(SHARDS)]
        words = part["left_out"] or ""
        if part["name"] == "tests":
            words = words or "; ".join(filter(None, (_last_line(out / f"{name}.txt") for name in names)))
        elif part["outcome"] in ("failed", "out of time"):
            words = _last_line(out / f"{part['name']}.log")
        time_ = [f"{part['seconds']:.0f}", f"{part['limit']:.0f}"] if part["outcome"] != "left out" else ["-", "-"]
        rows.append([part["name"], part["outcome"], *time_, words])
    return markdown(["part", "outcome", "s", "limit", "note"], rows)


def _same_run_section(out: Path) -> str:
    runs = [_json(out / f"run-{device}.json") for device in ("cpu", "cuda")]
    keys = ("device", "dataset", "steps", "seconds", "samples_per_second", "train_loss", "test_accuracy", "compiled")
    rows = [[f"{run[key]:,.5g}" if isinstance(run[key], float) else str(run[key]) for key in keys] for run in runs]
    found = _json(out / "same-run.json")
    words = [
        f"- {dtype}, the first {one['steps']} steps: losses differ by {one['worst_relative_difference']:.1e} at most"
        f" (bound {one['bound']:.0e})"
        for dtype, one in found.items()
        if dtype.startswith("float")
    ]
    accuracy = found["accuracy"]
    words.append(f"- test accuracies differ by {accuracy['difference']:.4f} (bound {accuracy['bound']})")
    return "\n".join([markdown([key.replace("_", " ") for key in keys], rows), "", *words])


def seconds_to(rows: Iterable[dict[str, Any]], goals: Iterable[float]) -> dict[float, tuple[int, float]]:
    """Return the epoch and the seconds of training after which each goal was first reached, from a run's history."""
    reached: dict[float, tuple[int, float]] = {}
    seconds = 0.0
    for row in rows:
        seconds += row["seconds"]
        for goal in goals:
            if row["test_accuracy"] >= goal:
                reached.setdefault(goal, (row["epoch"], seconds))
    return reached


def _accuracy_section(out: Path) -> str:
    texts = []
    if (out / "whole.json").exists():
        found = _json(out / "whole.json")
        texts.append(whole.table(found["results"], found["goals"]))
        texts.append(missing(found))
    if (out / "accuracy.json").exists():
        lines = (out / "run-accuracy" / "history.jsonl").read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        reached = seconds_to(history, GOALS)
        words = [f"{100 * goal:g} % after {epochs} epochs and {s:.2f} s" for goal, (epochs, s) in reached.items()]
        best = max(row["test_accuracy"] for row in history)
        texts.append(f"`xpnet train {RECIPE}`: {'; '.join([*words, f'{100 * best:.2f} % at best'])}.")
        texts.append("Seconds are of training steps, compiling included.")
    return "\n\n".join(filter(None, texts)) or "Left out."


def _plan_section(out: Path) -> str:
    lines = (out / "plan.txt").read_text(encoding="utf-8").splitlines()
    more = f"\n\n{len(lines) - PLAN_LINES} more lines are in plan.txt." if len(lines) > PLAN_LINES else ""
    return "\n".join(["```", *lines[:PLAN_LINES], "```"]) + more


def has_mnist() -> bool:
    """Return whether MNIST is in XPNET_DATA_DIR, or without it in the cache."""
    try:
        load_mnist(os.environ.get("XPNET_DATA_DIR") or None, offline=True)
    except (ImportError, ValueError):  # the cache's folder is known to pooch, which may be missing
        return False
    return True


def main() -> int:
    """Run the parts, write the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("gpu-check"), help="(default: gpu-check)")
    parser.add_argument("--quick", action="store_true", help="less, in under three minutes")
    parser.add_argument("--tiny", action="store_true", help="the least of each part, with loose limits: try the check")
    parser.add_argument("--report", action="store_true", help="run nothing; write the report on FOLDER again")
    options = parser.parse_args()
    out: Path = options.folder.resolve()

    if options.report:
        (out / "report.md").write_text(report(out), encoding="utf-8")
        return 0
    chosen = parts(out, mnist=has_mnist(), quick=options.quick, tiny=options.tiny)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # parts inherit what is ignored, as under nohup
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file in (out / f"{part.name}{end}" for part in chosen for end in (".json", ".txt", ".log")):
            file.unlink(missing_ok=True)  # of an earlier check
    except OSError as error:
        parser.error(f"{out} cannot be written: {error.strerror}")
    packages = {one.name: one.version for one in importlib.metadata.distributions() if one.name}
    about = {"python_path": sys.executable, "xpnet": xpnet.__file__, "packages": dict(sorted(packages.items()))}
    (out / "versions.json").write_text(json.dumps(surroundings("cuda") | about, indent=1), encoding="utf-8")
    seconds = sum(part.limit for part in chosen) + REPORT_SECONDS
    print(f"{len(chosen)} parts, in {seconds:.0f} s at most; the report is {out / 'report.md'}")
    for part in chosen:
        print(f"{part.name:<12}", end="", flush=True)
        try:
            run_part(part, out)
        except KeyboardInterrupt:
            part.outcome = "interrupted"
        print(f"{part.outcome:<12} {part.seconds:5.1f} s  {part.left_out or ''}", flush=True)
        (out / "parts.json").write_text(json.dumps([asdict(one) for one in chosen], indent=1), encoding="utf-8")
        (out / "report.md").write_text(report(out), encoding="utf-8")
        if part.outcome == "interrupted":
            return 130
    return int(any(part.outcome in ("failed", "out of time") for part in chosen))


if __name__ == "__main__":
    sys.exit(main())
