"""The engine of a search: groups of trials as jobs of an executor, the results, and what to train on."""

from __future__ import annotations

import contextlib
import math
import secrets
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from ..core.checks import shown
from ..core.device import usable_processors
from ..core.errors import ExecutorError, one_line
from ..data import Dataset
from ..training.config import Config
from .groups import Outcome, groups_of
from .halving import Halving
from .work import Job, start, work

ATTEMPTS = 3  # at a job whose worker dies
LOOK = 5.0  # seconds between two looks at an executor

Finished = Callable[[int, Outcome], None]
"""Receives the number and the outcome of a trial that has ended."""


class Here(Executor):
    """An executor that does each job at once, in this thread."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function; Ctrl-C is raised here."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(Executor):
    """Processes of this machine, which are started again where one dies."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, get_context("spawn"), start)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Submit a job; where a process has died, to new ones."""
        with _without_interrupts():  # which a process would take while it starts
            try:
                return self._pool.submit(function, *arguments, **options)
            except BrokenExecutor:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._new()
                return self._pool.submit(function, *arguments, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; without `wait`, at once."""
        running = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        if not wait:
            for process in running:
                process.terminate()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Context in which Ctrl-C is ignored, here and, for good, by processes that begin in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Engine:
    """The trials of a search, trained group by group.

    Args:
        configs: options of the trials.
        data: with validation rows, as `prepare` returns it.
        device: the name of one.
        halving: the rungs, or None to train all trials to the end.
        done: outcomes of trials that need no training.
        most: replicas in a group at most; None for what is fastest.
        threads: of a job on the CPU; None for those that are set.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        data: Dataset,
        device: str,
        *,
        halving: Halving | None = None,
        done: dict[int, Outcome] | None = None,
        most: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.key = secrets.token_hex(8)
        self._configs, self._data, self._device, self._threads = configs, data, device, threads
        self._halving, self._most = halving, most
        self._succeeded = False
        self._outcomes = dict(done or {})
        self._finished = set(self._outcomes)
        new = [number for number in range(len(configs)) if number not in self._finished]
        groups = groups_of([configs[number] for number in new], data, most)
        first = None if halving is None else halving.rungs[0]
        self._waiting = [self._job([new[place] for place in group], first) for group in groups]

    def _job(self, trials: Sequence[int], until: int | None) -> Job:
        states = [self._outcomes[number].state for number in trials if number in self._outcomes]
        return Job(
            trials,
            [self._configs[number] for number in trials],
            self._device,
            self._threads,
            [state for state in states if state is not None] or None,
            until,
            keep_states=self._halving is not None and until != self._halving.rungs[-1],
        )

    def run(self, executor: Executor, slots: int, finished: Finished) -> None:
        """Train all trials.

        Args:
            executor: does the jobs.
            slots: jobs at a time.
            finished: called with each trial that has ended.

        Raises:
            ExecutorError: the executor is gone.
        """
        running: dict[Future[Any], tuple[Job, int]] = {}
        try:
            while True:
                while len(running) < slots and (job := self._next()) is not None:
                    running[self._submit(executor, job)] = job, 1
                if not running:
                    return
                for future in self._ended(executor, running):
                    job, attempt = running.pop(future)
                    outcomes = self._result(executor, future, job, attempt)
                    if outcomes is None:
                        running[self._submit(executor, job, self._data)] = job, attempt + 1
                    else:
                        self._take(job, outcomes, finished)
        finally:
            for future in running:
                future.cancel()

    def _submit(self, executor: Executor, job: Job, data: Dataset | None = None) -> Future[Any]:
        given = self._data if isinstance(executor, Here) else data
        try:
            return executor.submit(work, job, self.key, given)
        except RuntimeError as error:
            raise ExecutorError(f"the executor takes no more jobs: {one_line(error)}") from error

    def _ended(self, executor: Executor, running: Iterable[Future[Any]]) -> set[Future[Any]]:
        """Wait for jobs; raise ExecutorError where a Dask scheduler is gone, of whose jobs none ever ends."""
        client = getattr(executor, "_client", None)
        while not (found := wait(running, LOOK, FIRST_COMPLETED).done):
            if getattr(client, "status", None) in ("closing", "closed"):
                raise ExecutorError("the Dask scheduler is gone")
        return found

    def _result(self, executor: Executor, future: Future[Any], job: Job, attempt: int) -> list[Outcome] | None:
        """Return the outcomes of a job; None where it is to be done again, by another worker or with the data."""
        try:
            outcomes: list[Outcome] | None = future.result()
            self._succeeded = True
            return outcomes
        except Exception as error:
            if isinstance(executor, Here) and not isinstance(error, MemoryError):
                raise
            if attempt < ATTEMPTS:
                return None
            if isinstance(error, BrokenExecutor) and not self._succeeded:
                raise ExecutorError(
                    f"no process of the executor lives ({one_line(error)}); a script that starts some needs"
                    ' `if __name__ == "__main__":`'
                ) from error
            names = ", ".join(map(str, job.trials))
            warnings.warn(f"trials {names} were given up after {attempt} attempts: {one_line(error)}", stacklevel=4)
            failed = Outcome(math.nan, 0, [], {"validation_loss": math.nan, "error": one_line(error)})
            return [failed] * len(job.trials)

    def _next(self) -> Job | None:
        """Return the next job: of the trials that have not begun, else of those that pass a rung."""
        if not self._waiting and self._halving is not None and (passing := self._halving.next()) is not None:
            until, trials = passing
            groups = groups_of([self._configs[number] for number in trials], self._data, self._most)
            self._waiting = [self._job([trials[place] for place in group], until) for group in groups]
        return self._waiting.pop(0) if self._waiting else None

    def _take(self, job: Job, outcomes: Sequence[Outcome], finished: Finished) -> None:
        """Take the outcomes of a job."""
        for number, outcome in zip(job.trials, outcomes, strict=True):
            self._outcomes[number] = outcome
            if self._halving is not None and job.until is not None:
                self._halving.record(number, job.until, outcome.score)
        ended = job.trials if self._halving is None else self._halving.stopped()
        for number in ended:
            if number not in self._finished:
                self._finished.add(number)
                finished(number, self._outcomes[number])
                outcome = self._outcomes[number]
                outcome.state = outcome.values = outcome.buffers = None


def slots_of(executor: Executor, workers: int | None) -> int:
    """Number of jobs that an executor does at a time: as many as are given, else as it says, else as processors."""
    if not (isinstance(executor, Executor) or callable(getattr(executor, "submit", None))):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {shown(executor)}")
    said = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
    return workers or (said if isinstance(said, int) else None) or usable_processors()


@contextlib.contextmanager
def executor_of(workers: int) -> Iterator[Executor]:
    """Context with an executor of this machine: processes, or this one; it ends at once after an error or Ctrl-C."""
    executor: Executor = Here() if workers == 1 else Processes(workers)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
