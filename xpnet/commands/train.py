"""python -m xpnet.train: train a multilayer perceptron on MNIST, and say how well it does."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..compile import PRECISIONS, StepTimes
from ..compile.cuda.target import ARCHITECTURES, architecture_of
from ..core.checks import path_of
from ..core.device import Device, limit_threads
from ..core.errors import DataError, DivergedError, printable
from ..core.files import try_writing, write_atomically
from ..core.imports import IS_COMMAND
from ..core.interrupts import DeferredInterrupt
from ..core.stopwatch import Stopwatch
from ..data import Dataset
from ..model.compiled import CANNOT_TRACE
from ..training import Config, Trainer
from ..training.build import network_sizes, threads_for
from ..training.calibration import calibrate
from ..training.callbacks import Callback
from ..training.checkpoint import Checkpoint, parse_every
from ..training.choice import faster_device
from ..training.compiled_step import SWITCHED_OFF
from ..training.config import read_options
from ..training.progress import Progress
from ..training.ranks import Ranks, agreed
from ..training.run_folder import CHANGING, RunFolder, finite
from ..training.runner import TOO_FEW
from ..training.tensorboard import TensorBoard
from ..training.training import HistoryRow, Training
from . import cli, results
from .inputs import check_drawable
from .options import add_options, build_trainer, config_of, folder, load_data, prepare_data, sentence, words_of
from .ranks import device_of_rank, threads_of_rank, witness
from .ranks import run as run_on_ranks
from .results import evaluated, result_of, scores_held_out, tell_of_seeds

MAY_CHANGE = ("device", "data_dir", *CHANGING)  # in a run that is gone on with
ROOFLINE = "roofline.png"
PREVIEWED = 8  # pictures, and distortions of each
EVERY = "write the state into DIR (default: each epoch, at most every 30 s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (by default those of the process); return its exit code.

    Under mpiexec, all processes train one model.
    """
    return run_on_ranks(_main, arguments)


def _main(arguments: Sequence[str] | None, ranks: Ranks | None) -> int:
    started = time.perf_counter()
    stopwatch = Stopwatch()
    if IS_COMMAND:
        stopwatch.seconds["imports"] = time.thread_time()  # since Python started
    parser = _parser()

    def read() -> tuple[Config, argparse.Namespace, dict[str, Any] | None]:
        options = parser.parse_args(arguments)
        kept = _kept_options(parser, options)
        config = config_of(parser, options, kept)
        if kept is not None:
            _check_unchanged(parser, config, kept)
        if options.preview is not None:
            if not config.augment:
                parser.error("--preview draws what --augment does, which is not given")
            if options.plan or options.plan_for is not None:
                parser.error("--preview draws, and --plan prints: one of them at a time")
            parser.check_writable(options.preview, "--preview")
            check_drawable(options.preview)
        return config, options, kept

    return _train(*agreed(ranks, read), started, stopwatch, ranks)


def _kept_options(parser: cli.Parser, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the options of the run to resume, if any; end the command where others do not go with --resume."""
    kept = None
    if options.resume is not None:
        for name in ("out", "config", "overwrite"):
            if vars(options).get(name):
                parser.error(f"--resume goes on with a run as it was: --{name} cannot be given")
        options.out = options.resume
        path = RunFolder(options.resume).config_path
        if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises where it may not look)
            raise DataError(f"{options.resume} holds no run to go on with: there is no config.json that can be read")
        try:
            kept = read_options(path)
        except (TypeError, ValueError) as error:
            parser.error(str(error))
    if options.times and (not options.plan or options.plan_for is not None):
        parser.error("--times goes with --plan, and times the step on this machine")
    if options.checkpoint_every is not None and options.out is None:
        parser.error("--checkpoint-every needs --out, a folder for the checkpoints")
    return kept


def _check_unchanged(parser: cli.Parser, config: Config, kept: dict[str, Any]) -> None:
    """End the command where an option differs from the run's, but for where and how long it trains."""
    try:
        run = Config(**kept)
    except (TypeError, ValueError) as error:  # of an option that is given
        parser.error(str(error))
    names = [one.name for one in fields(Config) if one.name not in MAY_CHANGE]
    for name in names:
        given, before = getattr(config, name), getattr(run, name)
        if given != before:
            parser.error(f"{words_of(name, given)} is not the run's, which has {words_of(name, before)}")


@dataclass
class Run:
    """A run that is ready to train: its options, its folder (of rank 0), the data, and the trainer."""

    config: Config
    options: argparse.Namespace
    device: Device
    folder: RunFolder | None
    loaded: Dataset
    data: Dataset
    trainer: Trainer
    arguments: dict[str, Any]
    threads: int
    ranks: Ranks | None


def _train(
    config: Config,
    options: argparse.Namespace,
    kept: dict[str, Any] | None,
    started: float,
    stopwatch: Stopwatch,
    ranks: Ranks | None,
) -> int:
    with contextlib.ExitStack() as stack, witness(ranks, options.out):
        run = agreed(ranks, lambda: _ready(config, options, kept, ranks, stack, stopwatch))
        trainer, arguments = run.trainer, run.arguments
        if ranks is not None:
            _check_data_alike(run, ranks)
        if options.plan or options.plan_for is not None:
            with limit_threads(run.threads):
                plan = trainer.plan(arguments["x"], None, architecture=options.plan_for)
                times = _timed(run) if options.times else None
            print(_plan_of(plan, times, as_json=options.json))
            return 0
        if options.preview is not None:
            _preview(options.preview, run)
            return 0
        checkpoint = None if options.out is None else RunFolder(options.out).checkpoint(options.checkpoint_every)
        if kept is None:
            agreed(ranks, lambda: _start(run))
        else:
            assert checkpoint is not None
            note = _resume(trainer, checkpoint)
            agreed(ranks, lambda: _go_on(run, kept, note))
        with limit_threads(run.threads):
            _fit(run, arguments | {"checkpoint": checkpoint})
            measured = _calibrated(run) if run.config.calibrate else {}
            _finish(run)
            if trainer.model.ensemble or run.config.calibrate:
                measured |= evaluated(trainer, arguments)
            if ranks is None or ranks.index == 0:
                _report(run, measured, started)
    return 0


def _timed(run: Run) -> StepTimes | str:
    """Time the compiled step, and draw the times into the folder of --out."""
    out = run.options.out
    if out is not None:
        check_drawable(out / ROOFLINE)
        _make_folder(out)
    times = run.trainer.times(run.arguments["x"], None)
    if out is not None and not isinstance(times, str):
        from ..plots import draw_roofline

        write_atomically(out / ROOFLINE, draw_roofline(times))
    return times


def _plan_of(plan: str, times: StepTimes | str | None, *, as_json: bool) -> str:
    """What --plan prints: the plan, and with --times the times, or why there are none."""
    if as_json:
        numbers = times.numbers() if isinstance(times, StepTimes) else times
        return json.dumps({"plan": plan} | ({} if times is None else {"times": finite(numbers)}))
    if isinstance(times, str):
        return f"{plan}\n\n{times}"
    return plan if times is None else str(times)


def _preview(path: Path, run: Run) -> None:
    """Draw some training pictures, with distorted ones beside them, into a PNG file."""
    from ..plots import draw_distorted

    augment, trainer = run.trainer.augment, run.trainer
    assert augment is not None
    pictures = np.asarray(run.data.x_train[:PREVIEWED]).reshape(-1, *trainer.model.input_shape)
    distorted = [augment.distort(pictures, trainer.seed, step) for step in range(PREVIEWED)]
    if run.ranks is None or run.ranks.index == 0:
        write_atomically(path, draw_distorted(pictures, np.stack(distorted)))
        cli.tell(f"{path} has {len(pictures)} training pictures, each as in the batches of {PREVIEWED} steps")


def _report(run: Run, measured: dict[str, Any], started: float) -> None:
    """Print the result, and write it."""
    folder, options = run.folder, run.options
    if options.metrics:
        found = scores_held_out(run.trainer.model, run.data, quiet=options.quiet)
        measured |= found
        if folder is not None:
            write_atomically(folder.metrics_path, json.dumps(finite(found), indent=2) + "\n")
    path = None if folder is None else folder.model_path
    result = result_of(run.config, run.data, run.trainer, run.threads, measured, path)
    result["total_seconds"] = time.perf_counter() - started
    if not options.quiet:
        cli.tell(results.where_time_went(result))
    if "replicas" in result:
        tell_of_seeds(result)
    if folder is not None:
        folder.write_result(result)
    print(json.dumps(finite(result)) if options.json else printable(results.sentence(result)))


def _check_data_alike(run: Run, ranks: Ranks) -> None:
    """Raise DataError on all ranks where one has loaded other data."""
    prints = ranks.gather(run.loaded.fingerprint())
    other = next((rank for rank, one in enumerate(prints) if one != prints[0]), None)

    def compare() -> None:
        if other is not None:
            raise DataError(f"{run.loaded.source} holds other data on rank {other} than on rank 0")

    ranks.agree(compare)


def _ready(
    config: Config,
    options: argparse.Namespace,
    kept: dict[str, Any] | None,
    ranks: Ranks | None,
    stack: contextlib.ExitStack,
    stopwatch: Stopwatch,
) -> Run:
    """Take the folder, load the data and build the trainer: all that can be wrong is found before an old run goes."""
    device = cli.choose_device(config.device, require=options.require_device)
    device = device_of_rank(device, config.device, ranks)
    if config.precision in PRECISIONS[1:] and device.index is None:
        cli.tell(f"precision {config.precision} is a GPU's: products on the CPU are in float32")
    plans = options.plan or options.plan_for is not None or options.preview is not None
    writes = not plans and (ranks is None or ranks.index == 0)
    folder = stack.enter_context(_folder(options)) if writes and options.out is not None else None
    if writes and options.tensorboard is not None:
        _make_folder(options.tensorboard.folder)
    if folder is not None and not folder.locked:
        cli.tell(f"{folder.path} cannot be locked on its file system: a second run there would not be refused")
    with stopwatch.part("data"):
        loaded = load_data(config, offline=options.offline, quiet=options.quiet)
    if folder is not None and kept is not None:
        folder.check_data(loaded)
    count = 1 if ranks is None else ranks.count
    if kept is not None and "threads" not in options and _folder(options).place_before() != (device.name, count):
        config = replace(config, threads=None)  # those were a share of another machine
    with stopwatch.part("data"):
        data = prepare_data(config, loaded)
    if config.device == "auto" and device.index is not None and ranks is None:
        device = _faster(config, data, device, quiet=options.quiet)
    trainer, arguments = build_trainer([config], data, device, ranks)
    trainer.stopwatch = stopwatch
    threads = threads_for(config, data, device)
    threads = threads if config.threads is not None else threads_of_rank(threads, ranks)
    return Run(config, options, device, folder, loaded, data, trainer, arguments, threads, ranks)


def _make_folder(path: Path) -> None:
    """Make a folder, if it is missing; raise DataError where no file can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        try_writing(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _start(run: Run) -> None:
    """Begin a new run: write its config, and say what it trains on."""
    ranks = 1 if run.ranks is None else run.ranks.count
    if run.folder is not None:
        run.folder.start(run.config, run.device, run.threads, run.loaded, ranks)
    _tell_of(run)


def _tell_of(run: Run) -> None:
    """Say what a run trains, and on what."""
    config = run.config
    if not run.options.quiet:
        threads_too = f", threads: {run.threads}" if run.device.index is None else ""
        ranks_too = "" if run.ranks is None else f", on each of {run.ranks.count} ranks"
        cli.tell(sentence(config, run.data))
        many = config.networks or 1
        networks = f" {many} networks, of which epochs show the mean," if many > 1 else ""
        cli.tell(f"training{networks} on {run.device.name}{threads_too}{ranks_too}, {run.arguments['steps']} steps")
        if run.options.watch and run.options.out is None and run.options.tensorboard is None:
            cli.tell("nothing keeps what --watch records: give --out DIR or --tensorboard DIR")


def _folder(options: argparse.Namespace) -> RunFolder:
    return RunFolder(options.out, overwrite=options.overwrite, resume=options.resume is not None)


def _resume(trainer: Trainer, checkpoint: Checkpoint) -> str | None:
    """Take the state of the last checkpoint; return a note where it is the one before."""
    try:
        note = trainer.resume(checkpoint)
    except ValueError as error:
        raise DataError(str(error)) from error
    if len(trainer.history) != trainer.epoch:
        raise DataError(f"{checkpoint.path} is no checkpoint of a run: its history is not whole")
    return note


def _go_on(run: Run, kept: dict[str, Any], note: str | None) -> None:
    """Bring the folder to the state of the checkpoint, and say from where the run goes on."""
    trainer, folder, config, total = run.trainer, run.folder, run.config, run.arguments["steps"]
    path = run.options.out
    if note is not None:
        cli.tell(note)
    if trainer.step > total:
        raise cli.UsageError(f"{path} has taken {trainer.step} steps, more than the {total} that are to be taken")
    if config.schedule != "constant" and (config.epochs, config.steps) != (kept.get("epochs"), kept.get("steps")):
        cli.tell(f"the schedule {config.schedule} is from here on that of {total} steps")
    if folder is not None:
        folder.go_on(config, trainer.history, 1 if run.ranks is None else run.ranks.count)
    last = trainer.history[-1]["step"] if trainer.history else 0
    if trainer.step == last == total:
        cli.tell(f"the run in {path} has ended, after step {trainer.step}")
    else:
        cli.tell(f"going on after step {trainer.step}, in epoch {trainer.epoch + 1}")
    _tell_of(run)


def _faster(config: Config, data: Dataset, gpu: Device, *, quiet: bool) -> Device:
    """Return the device that takes a step of this network and batch sooner, and say so in one line."""
    steps = config.total_steps(-(-len(data.x_train) // config.batch_size))
    how: dict[str, Any] = {"dtype": config.dtype, "replicas": config.networks}
    device, why = faster_device(gpu, network_sizes(config, data), config.batch_size, steps, **how)
    if not quiet:
        cli.tell(f"auto is {why}")
    return device


def _slower(trainer: Training) -> bool:
    """Whether steps run eagerly for a reason that its user did not choose; without LLVM, the CPU replays them."""
    reason = trainer.compiled
    if not isinstance(reason, str) or reason.startswith((SWITCHED_OFF, TOO_FEW)):
        return False
    return trainer.model.device.index is not None or reason.startswith(CANNOT_TRACE)


def _fit(run: Run, arguments: dict[str, Any]) -> None:
    """Train, showing progress and writing the run folder; whatever ends it, the folder is whole."""
    trainer, folder, options = run.trainer, run.folder, run.options
    leads = run.ranks is None or run.ranks.index == 0
    progress = None if options.quiet else Progress(lines=sys.stderr)
    notes = Notes(progress)
    optional = (progress, notes, None if folder is None else History(folder), options.tensorboard if leads else None)
    callbacks = [one for one in optional if one is not None]
    try:
        with notes.interrupt, warnings.catch_warnings():
            warnings.showwarning = lambda message, *details: notes.write(f"warning: {message}")
            trainer.fit(**arguments, callbacks=callbacks, watch=options.watch, verbose=0)
    except (DivergedError, KeyboardInterrupt) as error:
        if folder is None:
            raise
        if isinstance(error, DivergedError) and error.row is not None:
            folder.add(error.row)
        folder.finish(trainer.model, trainer.history)
        state = str(error) or f"the model is as after {trainer.position}"
        how = "" if isinstance(error, DivergedError) else f"; go on with --resume {folder.path}"
        raise type(error)(f"{state}, and in {folder.model_path}{how}") from None
    except OSError as error:
        if folder is None:
            raise
        raise OSError(error.errno, f"{error.strerror}; {_rescue(trainer, folder)}", error.filename) from None


def _calibrated(run: Run) -> dict[str, Any]:
    """Calibrate the model by the validation rows; return the temperature, for the result."""
    temperature = calibrate(run.trainer.model, run.data.x_validation, run.data.y_validation)
    if not run.options.quiet:
        cli.tell(f"calibrated by the validation rows: the last outputs are divided by {temperature:.4g}")
    return {"temperature": temperature}


def _finish(run: Run) -> None:
    """Write the model and the curves."""
    note = None if run.folder is None else run.folder.finish(run.trainer.model, run.trainer.history)
    if note and not run.options.quiet:
        cli.tell(note)


def _rescue(trainer: Trainer, folder: RunFolder) -> str:
    """Write the model where another file of the run could not be written; return what is left of the run, in words."""
    try:
        folder.save(trainer.model)
        kept = f"{folder.model_path} holds the model as after {trainer.position}"
    except OSError:
        kept = f"nor can {folder.model_path} be written"
    checkpoint = folder.checkpoint(None)
    if checkpoint.path.exists() or checkpoint.previous.exists():
        kept += f"; go on with --resume {folder.path}"
    return kept


class History(Callback):
    """Rows of the history, in the file of a run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Add a row."""
        self._folder.add(row)


class Notes(Callback):
    """Notes on stderr while a bar may be there; Ctrl-C ends a run between two calls of steps."""

    def __init__(self, progress: Progress | None) -> None:
        self.interrupt = DeferredInterrupt()
        self._progress = progress

    def on_step(self, trainer: Training) -> None:
        """Look for Ctrl-C."""
        self.interrupt.check()

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Say once why steps are slow."""
        if row["epoch"] == 1 and _slower(trainer):
            self.write(f"steps run eagerly, and slower: {trainer.compiled}")

    def write(self, text: str) -> None:
        """Print a line."""
        if self._progress is None:
            cli.tell(text)
        else:
            self._progress.write(cli.one_sentence(text))


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "train",
        argument_default=argparse.SUPPRESS,
        description="Train a multilayer perceptron, on pictures of handwritten digits or on data of your own.",
        epilog="Exit codes: 0; 1 the run failed; 2 arguments, data or devices; 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.",
    )
    add_options(parser)
    add = parser.add_argument_group("output").add_argument
    add("--out", type=folder, default=None, metavar="DIR", help="write config, history, model and curves into DIR")
    add("--overwrite", action="store_true", default=False, help="let DIR hold a run already, and replace it")
    add("--checkpoint-every", type=_every, default=None, metavar="1epoch|100steps|5minutes", help=EVERY)
    add("--resume", type=folder, default=None, metavar="DIR", help="go on with the run in DIR from its last checkpoint")
    add("--metrics", action="store_true", default=False, help="at the end, log loss, AUC, F1, ... of the rows held out")
    add("--json", action="store_true", default=False, help="print one JSON object on stdout")
    add("--plan", action="store_true", default=False, help="print what the compiled step does, and train nothing")
    add("--plan-for", type=_architecture, default=None, metavar="sm_90", help="print it for a GPU of an architecture")
    add("--times", action="store_true", default=False, help="with --plan: time each instruction; --out DIR draws them")
    add("--preview", type=path_of, default=None, metavar="FILE.png", help="draw what --augment does, and train nothing")
    add("--quiet", action="store_true", default=False, help="no progress on stderr")
    add = parser.add_argument_group("watching").add_argument
    add("--watch", action="store_true", default=False, help="add activations, gradients, updates to the history")
    add("--tensorboard", type=_tensorboard, default=None, metavar="DIR", help="write the history for TensorBoard")
    return parser


def _every(text: str) -> str:
    try:
        parse_every(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("every ")) from None
    return text


def _tensorboard(text: str) -> TensorBoard:
    """Return the writer into a folder, as --tensorboard has it."""
    try:
        return TensorBoard(folder(text))
    except ImportError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _architecture(text: str) -> int:
    """Return the architecture of a GPU, as --plan-for has it."""
    number = text.removeprefix("sm_")
    if not (text.startswith("sm_") and number.isdecimal() and architecture_of(int(number)) is not None):
        names = ", ".join(f"sm_{one}" for one in ARCHITECTURES)
        raise argparse.ArgumentTypeError(f"{text!r} is no architecture that steps are compiled for: {names}")
    return int(number)


if __name__ == "__main__":
    sys.exit(main())
