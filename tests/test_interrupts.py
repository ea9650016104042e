"""Ctrl-C at any moment of a fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from xpnet import MLP, Adam, Trainer
from xpnet.core.interrupts import DeferredInterrupt

SCRIPT = Path(__file__).parents[1] / "scripts" / "interrupts.py"
X = np.random.default_rng(0).standard_normal((64, 8))
Y = np.arange(64) % 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_interrupts_at_random_moments():
    """A short form of the script; at the commit before threads were joined in one native call, it crashed."""
    cases = ["trainer", "eager trainer", "search"]
    if find_spec("sklearn"):
        cases += ["classifier", "regressor", "classifier, lbfgs"]
    command = [sys.executable, str(SCRIPT), "--count", str(10 * len(cases)), "--cases", *cases]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 faults") == len(cases)


@pytest.mark.parametrize("checks", [True, False])
def test_ctrl_c_waits_for_check_or_for_the_end(checks):
    reached = []

    def work():
        with DeferredInterrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            reached.append("the line behind")
            if checks:
                interrupt.check()
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the line behind", "the end"][: 2 - checks]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_a_function_of_the_users_at_once():
    reached = []

    def callback():
        signal.raise_signal(signal.SIGINT)
        reached.append("the line behind")

    with pytest.raises(KeyboardInterrupt), DeferredInterrupt() as interrupt:
        interrupt.call(callback)
    assert not reached


def test_other_handlers_and_other_threads_are_left_alone():
    mine = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGINT, mine)
    try:
        with DeferredInterrupt():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def work():
        with DeferredInterrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_fit_in_a_callback_is_deferred_too():
    """The inner fit ends at a step, the outer one as after any exception of its callback."""
    inner = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16)
    outer = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16)

    def interrupt_at(step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch(row):
        inner.fit(X, Y, epochs=3, on_step=interrupt_at)

    with pytest.raises(KeyboardInterrupt):
        outer.fit(X, Y, epochs=3, on_epoch=on_epoch)
    assert (outer.epoch, inner.epoch, inner.step) == (1, 1, 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ZeroDivisionError])
@pytest.mark.parametrize("name", ["on_step", "on_progress"])
def test_an_exception_in_the_middle_of_an_epoch_undoes_the_epoch(name, error):
    def fail(step):
        if step > 5:
            raise error

    whole = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16, compile=False)
    whole.fit(X, Y, epochs=3)
    trainer = Trainer(MLP([8, 6, 3]), Adam(0.01), batch_size=16, compile=False)
    with pytest.raises(error):
        trainer.fit(X, Y, epochs=3, **{name: fail})
    assert (trainer.epoch, trainer.step, len(trainer.history)) == (1, 4, 1)
    trainer.fit(X, Y, epochs=2)
    assert (trainer.model.network.values == whole.model.network.values).all()


def test_a_handler_that_a_callback_installs_stays():
    mine = lambda number, frame: None  # noqa: E731
    trainer = Trainer(MLP([8, 6, 3]), batch_size=16)
    try:
        trainer.fit(X, Y, on_epoch=lambda row: signal.signal(signal.SIGINT, mine) and None)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_rows_that_take_long_are_interrupted_at_once():
    class Lazy:
        def __array__(self, *types, **options):
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the line behind")

    trainer = Trainer(MLP([8, 6, 3]), batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Lazy(), Y)
    assert trainer.fit(X, Y)
