"""Kill a training at random moments, resume it each time, and compare its model with that of a run nobody killed.

    python scripts/kills.py [--kills 200] [--device cpu] [--checkpoint-every 3steps] [TRAIN OPTIONS...]

It ends with status 1 where a byte differs, where the last checkpoint was not whole, or where a run could not be resumed
or began anew. The result is a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from xpnet import DataError
from xpnet.core.device import get_device
from xpnet.training import Checkpoint
from xpnet.training.run_folder import machine

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from surroundings import surroundings

TRAIN = ["--dataset", "digits", "--hidden", "100", "--dropout", "0.2", "--validation", "0.1", "--early-stop", "500"]
TRAIN += ["--epochs", "400"]
History = list[dict[str, Any]]


def main() -> int:
    """Run the kills; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint-every", default="3steps")
    options, others = parser.parse_known_args()
    every = ["--device", options.device, "--quiet", "--checkpoint-every", options.checkpoint_every]
    train = [*TRAIN, *others]
    moments, killed, resumed, runs, faults = random.Random(0), 0, 0, 0, []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        subprocess.run(command(*train, *every, "--out", whole), check=True, capture_output=True)
        longest = time.monotonic() - started
        while killed < options.kills:
            runs += 1
            run, kept = Path(folder) / f"run{runs}", None
            while True:
                words = [*train, "--out", run, "--overwrite"] if kept is None else ["--resume", run]
                process = subprocess.Popen(command(*words, *every), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                try:
                    _, said = process.communicate(timeout=moments.uniform(0.3, longest / 3))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed, resumed = killed + 1, resumed + (kept is not None)
                    kept, fault = state(run, kept)
                else:
                    fault = said.decode(errors="replace").strip() if process.returncode else differing(run, whole, kept)
                faults += [f"run {runs}: {fault}"] * bool(fault)
                if fault or process.returncode >= 0:
                    break
    found = {"kills": killed, "of_resumed": resumed, "runs": runs, "faults": faults, "device": options.device}
    found |= {"seconds_of_a_run": round(longest, 1), "seconds": round(time.monotonic() - started)}
    found |= {
        "options": [*map(str, train), *every],
        "machine": machine(get_device(options.device)),
    }
    found |= surroundings(options.device)
    print(json.dumps(found))
    return int(bool(faults))


def state(run: Path, before: History | None) -> tuple[History | None, str | None]:
    """Return the history in the last checkpoint of a run that was killed, and a fault of it; None for none."""
    checkpoints = Checkpoint(run / "checkpoint.safetensors")
    if not (checkpoints.path.exists() or checkpoints.previous.exists()):
        return None, None if before is None else "its checkpoints are gone"
    try:
        found, note = checkpoints.read()
    except DataError as error:
        return None, str(error)
    # Between two renames, only the previous one is there.
    damaged = note if note is not None and checkpoints.path.exists() else None
    history: History = found.numbers["history"]
    return history, damaged or began_anew(history, before)


def differing(run: Path, whole: Path, before: History | None) -> str | None:
    """Return the fault of a run that has ended; None for none."""
    if (run / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes():
        return "the model is another one"
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return began_anew(rows, before)


def began_anew(rows: History, before: History | None) -> str | None:
    """Say so where a history does not go on from the one before; its seconds would be others."""
    return None if before is None or rows[: len(before)] == before else "it began anew"


def command(*arguments: object) -> list[str]:
    """Return the words of a training command."""
    return [sys.executable, "-m", "xpnet.train", *map(str, arguments)]


if __name__ == "__main__":
    sys.exit(main())
