"""What a fit shows: on a terminal of some width, in a pipe, and where nobody asked."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from command_line import DIGITS
from trainers import digits_model

from xpnet import Trainer
from xpnet.commands import train
from xpnet.training.progress import COLUMNS, LINE_SECONDS, epoch_line, width_of

ROW = {"epoch": 7, "seconds": 1234.5, "train_loss": 123456.0, "validation_loss": float("nan"), "test_loss": 0.5}
OF_NUMBERS = {"train_r2": -12345.678, "validation_r2": -0.5, "test_r2": float("-inf")}


def on_a_terminal(columns, *words):
    """What `train` writes to a terminal of so many columns, as text between its carriage returns."""
    pty = pytest.importorskip("pty", reason="needs terminals")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "xpnet.train", *DIGITS, *words]
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 4096):
                written += piece
        except OSError:  # the end, on Linux
            pass
    os.close(ours)
    assert process.returncode == 0, written
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", written.decode())


@pytest.mark.parametrize("columns", [80, 44])
def test_a_terminal_has_a_line_an_epoch_and_a_bar_below(columns):
    words = ("--epochs", "3", "--hidden", "400", "400", "--validation", "0.1", "--batch-size", "8")
    shown = on_a_terminal(columns, *words)
    told = ("digits: ", "training on ", "took ")
    pieces = [piece for piece in re.split(r"[\r\n]+", shown) if not piece.startswith(told)]
    assert max(map(len, pieces)) <= columns
    lines = [piece for piece in shown.splitlines() if re.match(r"epoch \d/3: ", piece)]
    numbers = [re.match(r"epoch (\d)/3: +\d\.", line) for line in lines]
    assert [found[1] for found in numbers if found] == ["1", "2", "3"]
    assert any("%" in piece and piece.startswith("epoch 2/3") for piece in pieces), "a bar"
    header = next(piece for piece in pieces if piece.startswith("  ") and piece.strip())
    titles = ["accuracy", "validation", "test", "loss", "val. loss", "seconds"]
    assert re.split(" {2,}", header.strip()) == (titles if columns == 80 else titles[:3])


def test_a_pipe_has_some_twenty_lines(run):
    """Of 167 epochs, the first, each tenth and the last."""
    _, _, err = run(train, *DIGITS, "--epochs", 167, "--hidden", 10)
    shown = [int(number) for number in re.findall(r"^epoch +(\d+)/167: ", err, re.MULTILINE)]
    assert shown == [1, *range(10, 161, 10), 167]
    assert len(err.splitlines()) == 2 + 1 + 18 + 1


def test_a_slow_epoch_in_a_pipe_has_its_line(run, monkeypatch):
    monkeypatch.setitem(LINE_SECONDS, False, 0.0)
    _, _, err = run(train, *DIGITS, "--epochs", 40, "--hidden", 10)
    assert len(re.findall("^epoch ", err, re.MULTILINE)) == 40


@pytest.mark.parametrize("width", range(20, 81))
def test_a_line_fits_its_terminal(width):
    """Whatever the figures are; the metric is the last column to go."""
    header, line = epoch_line(ROW | OF_NUMBERS, 100_000, width)
    assert len(line) <= width
    assert len(header) <= width
    assert line.startswith("epoch      7/100000:")
    assert width < 40 or "-1.235e+04" in line


def test_means_of_replicas_are_shown():
    row = {"epoch": 1, "seconds": 1.0, "train_loss": [1.0, 3.0, float("nan")], "train_accuracy": [0.25, 0.75, 0.5]}
    assert epoch_line(row, 1, COLUMNS)[1].split() == ["epoch", "1/1:", "0.5000", "2.0000", "1.00"]


def test_the_width_where_there_is_no_terminal(tmp_path):
    assert width_of(io.StringIO()) == COLUMNS
    with (tmp_path / "file").open("w", encoding="utf-8") as file:
        assert width_of(file) == COLUMNS


@pytest.mark.parametrize(("verbose", "lines"), [("auto", 0), (0, 0), (1, 22), (2, 41), (True, 22)])
def test_verbose(verbose, lines, digits, capsys):
    """Without a terminal, 1 is some lines, and 2 all: a header and those of epochs 1, 2, 4, ..."""
    Trainer(digits_model()).fit(digits.x_train[:100], digits.y_train[:100], epochs=40, verbose=verbose)
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == lines
    assert shown.err == ""


def test_closed_streams(digits, monkeypatch):
    """Python has None for them; a fit is then silent."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    rows = Trainer(digits_model()).fit(digits.x_train[:100], digits.y_train[:100], epochs=2, verbose=1)
    assert len(rows) == 2


def test_a_fit_that_stops_early_shows_its_last_epoch(digits, capsys):
    trainer = Trainer(digits_model())
    x, y = digits.x_train[:100], digits.y_train[:100]
    trainer.fit(x, y, epochs=100, on_epoch=lambda row: row["epoch"] == 13, verbose=1)
    assert re.findall(r"epoch +(\d+)/100", capsys.readouterr().out) == ["1", "5", "10", "13"]
