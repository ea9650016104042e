"""Trainings to compare: by one process, and by several ranks (`mpiexec -n 2 python -m mpi4py tests/ranks.py FILE`)."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np

from xpnet import MLP, SGD, Adam, Augmentation, Callback, Momentum, Trainer, evaluate, load_digits
from xpnet.core.errors import RankError

DIGITS = load_digits()
X, Y = DIGITS.x_train.reshape(len(DIGITS.x_train), -1), DIGITS.y_train
HELD_OUT = DIGITS.x_test.reshape(len(DIGITS.x_test), -1), DIGITS.y_test
NUMBERS = np.stack([X[:, 20:30].mean(axis=1), X[:, 3] * X[:, 12]], axis=1)
WEIGHTS = np.arange(len(X)) % 3 + 0.5
WHOLE_LAYERS = {"batch_norm": True, "dropout": 0.2}

CASES = {
    "eager": {"compile": False, "epochs": 3},
    "compiled": {"epochs": 40},
    "layers that see the whole batch, and weights": {
        "layers": WHOLE_LAYERS,
        "epochs": 40,
        "weights": WEIGHTS,
        "class_weight": "balanced",
    },
    "layers that see the whole batch, eager": {"layers": WHOLE_LAYERS, "compile": False, "epochs": 3},
    "numbers": {"task": "regression", "y": NUMBERS, "epochs": 40},
    "replicas": {"replicas": 3, "rule": lambda: Momentum([0.05, 0.1, 0.2]), "layers": WHOLE_LAYERS, "epochs": 40},
    "stops early": {"rule": lambda: Adam(0.02), "epochs": 60, "early_stop": 2},
    "few rows in the last batch": {"rows": 605, "batch_size": 100, "compile": False, "epochs": 2},
    "fewer rows in a batch than ranks": {"rows": 601, "batch_size": 100, "layers": WHOLE_LAYERS, "epochs": 80},
    "batches of one row": {"rows": 7, "batch_size": 1, "compile": False, "epochs": 2},
    "weights that are zero on a rank": {
        "weights": (np.arange(len(X)) > len(X) // 2).astype(float),
        "compile": False,
        "epochs": 2,
    },
    "distorted pictures": {"augment": Augmentation.digits(8), "epochs": 40},
    "distorted pictures, eager": {"augment": Augmentation.digits(8), "compile": False, "epochs": 2},
    "bytes on one rank": {"bytes": True, "compile": False, "epochs": 2},
}


def train(case, communicator=None):
    """History of a case, without times, and the last weights; with a communicator, of this rank's part of the rows."""
    case = dict(case)
    rank, ranks = (0, 1) if communicator is None else (communicator.rank, communicator.size)

    def part(rows):
        # Of unequal parts: a rank has twice the rows of the one before.
        ends = [len(rows) * (2**r - 1) // (2**ranks - 1) for r in range(ranks + 1)]
        return rows[ends[rank] : ends[rank + 1]]

    rows, y = case.pop("rows", len(X)), case.pop("y", Y)
    outputs = y.shape[1] if y.ndim == 2 else 10
    task, options = case.pop("task", "classification"), dict(case.pop("layers", {}))
    options |= {"replicas": case.pop("replicas", None), "dtype": case.pop("dtype", "float64")}
    augment = case.pop("augment", None)
    options |= {} if augment is None else {"input_shape": (8, 8)}
    model = MLP([X.shape[1], 40, 30, outputs], task=task, seed=1, **options)
    rule = case.pop("rule", Adam)()
    how = {"compile": case.pop("compile", True), "batch_size": case.pop("batch_size", 96), "augment": augment}
    trainer = Trainer(model, rule, seed=5, communicator=communicator, **how)
    weights = case.pop("weights", None)
    x = part(X[:rows])
    if case.pop("bytes", False) and rank == 0 and ranks > 1:  # digits are whole numbers
        x = x.astype(np.uint8)
    held_out = part(HELD_OUT[0]), part(NUMBERS[: len(HELD_OUT[0])] if task == "regression" else HELD_OUT[1])
    case["validation" if "early_stop" in case else "test"] = held_out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of halved rates
        history = trainer.fit(
            x,
            part(y[:rows]),
            sample_weight=None if weights is None else part(weights[:rows]),
            **case,
        )
    loss, metric = evaluate(model, *held_out, communicator=communicator)
    return {
        "history": [{name: value for name, value in row.items() if name != "seconds"} for row in history],
        "best_epoch": trainer.best_epoch,
        "compiled": trainer.compiled,
        "evaluated": [loss, metric],
        "weights": model.network.values.tolist(),
    }


def single_steps(communicator=None):
    """Losses of 50 steps, one by one."""
    rank, ranks = (0, 1) if communicator is None else (communicator.rank, communicator.size)
    rows = slice(len(X) * rank // ranks, len(X) * (rank + 1) // ranks)
    trainer = Trainer(MLP([64, 30, 10], dtype="float64", **WHOLE_LAYERS), Adam(0.01), communicator=communicator)
    for _ in range(50):
        trainer.fit(X[rows], Y[rows], steps=1)
    return [row["train_loss"] for row in trainer.history]


def halved(communicator):
    """Epochs and rate of a training whose rate must be halved."""
    rows = slice(0, 300 // communicator.size)
    trainer = Trainer(MLP([64, 2], task="regression"), SGD(1.0), batch_size=8, communicator=communicator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(X[rows], NUMBERS[rows], epochs=1, on_divergence="lower")
    return [trainer.epoch, trainer.rate_scale, trainer.model.network.values.tolist()]


class Fails(Callback):
    """An error in a method of a callback, on one rank."""

    def __init__(self, fails, method="on_epoch"):
        self.fails, self.method = fails, method

    def on_epoch(self, trainer, row):
        if self.fails and row["epoch"] == 2 and self.method == "on_epoch":
            raise OSError("no room")

    def on_stop(self, trainer):
        if self.fails and self.method == "on_stop":
            raise OSError("no room")

    def on_end(self, trainer):
        if self.fails and self.method == "on_end":
            raise OSError("no room")


def failures(communicator, folder):
    """What each rank raises where one is wrong, and the epochs that the trainer has taken."""
    rank, last = communicator.rank, communicator.rank == communicator.size - 1
    found = {}

    def attempt(name, rate=0.01, x=X, **options):
        trainer = Trainer(MLP([64, 20, 10]), Adam(rate), communicator=communicator)
        try:
            trainer.fit(x[rank :: communicator.size], Y[rank :: communicator.size], **{"epochs": 3, **options})
        except (OSError, RankError, TypeError, ValueError) as error:
            found[name] = [type(error).__name__, str(error), trainer.epoch]

    attempt("rows", x=X[:, :-1] if last else X)
    attempt("rates", rate=0.02 if last else 0.01)
    attempt("epochs", epochs=4 if last else 3)
    for method in ("on_epoch", "on_stop", "on_end"):
        attempt(method, callbacks=[Fails(last, method)])
    attempt("checkpoint", callbacks=[Fails(last)], checkpoint=folder / "c.safetensors")
    found["checkpoint"].append((folder / "c.safetensors").exists())
    attempt("validation", validation=(X,) if last else (X, Y))
    attempt("weights", sample_weight=WEIGHTS[rank :: communicator.size] if last else None)
    attempt("class weights", class_weight={0: 2.0} if last else None)
    try:
        evaluate(MLP([64, 20, 10]), X[:, :-1] if last else X, Y, communicator=communicator)
    except (RankError, ValueError) as error:
        found["evaluate"] = [type(error).__name__, str(error), 0]
    attempt("a callback of some that stops", callbacks=[Stops()] if last else [])
    return found


class Stops(Callback):
    """A callback that ends the training after an epoch."""

    def on_epoch(self, trainer, row):
        return True


def main():
    from mpi4py import MPI

    communicator = MPI.COMM_WORLD
    found = {name: train(case, communicator) for name, case in CASES.items()}
    found["single steps"] = single_steps(communicator)
    found["halved"] = halved(communicator)
    every = communicator.gather((found, failures(communicator, Path(sys.argv[1]).parent)))
    if communicator.rank == 0:
        results, errors = zip(*every, strict=True)
        Path(sys.argv[1]).write_text(json.dumps({"results": results, "errors": errors}), encoding="utf-8")


if __name__ == "__main__":
    main()
