"""Kill a training at random moments, resume it each time, and compare its model with that of a run nobody killed.

    python scripts/kills.py [--kills 200] [--device cpu] [TRAIN OPTIONS...]

It ends with status 1 where a byte differs, or where a run could not be resumed. The result is a line of JSON.
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

TRAIN = ["--dataset", "digits", "--hidden", "100", "--dropout", "0.2", "--validation", "0.1", "--early-stop", "500"]
LENGTH = ["--epochs", "400"]
EVERY = ["--checkpoint-every", "3steps"]


def main() -> int:
    """Run the kills; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    options, others = parser.parse_known_args()
    train = [*TRAIN, *LENGTH, "--device", options.device, "--quiet", *others]
    moments, killed, runs, faults = random.Random(0), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        started = time.monotonic()
        subprocess.run(command(*train, "--out", whole), check=True, capture_output=True)
        longest = time.monotonic() - started
        while killed < options.kills:
            run, line = Path(folder) / f"run{runs}", command(*train, "--out", Path(folder) / f"run{runs}", *EVERY)
            runs += 1
            while True:
                process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                try:
                    _, said = process.communicate(timeout=moments.uniform(0.2, longest))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    killed += 1
                    if any(run.glob("checkpoint*.safetensors")):  # or the previous one, without hard links
                        line = command("--resume", run, "--device", options.device, "--quiet", *EVERY)
                    else:  # nothing had been written yet
                        line = command(*train, "--out", run, "--overwrite", *EVERY)
                    continue
                if process.returncode:
                    faults.append(said.decode(errors="replace").strip())
                elif (run / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes():
                    faults.append(f"the model of run {runs} is another one")
                break
    print(json.dumps({"kills": killed, "runs": runs, "device": options.device, "faults": faults}))
    return int(bool(faults))


def command(*arguments: object) -> list[str]:
    """Return the words of a training command."""
    return [sys.executable, "-m", "xpnet.train", *map(str, arguments)]


if __name__ == "__main__":
    sys.exit(main())
