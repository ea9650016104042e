"""Progress of a fit: lines and a bar on a terminal, a bar and a curve in a notebook, few lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, TextIO

from ..model.metrics import TITLES
from .callbacks import Callback
from .history import curves_svg
from .spread import with_deviations
from .training import HistoryRow, Training

COLUMNS = 80  # width of lines where there is no terminal
MOST_LINES = {True: 1000, False: 20}  # of a fit, about, on a terminal and elsewhere
LINE_SECONDS = {True: 0.5, False: 30.0}  # an epoch that ends so long after the last line has one, too
CURVE_SECONDS = 0.5  # between two curves in a notebook

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Context of fits that are part of something else: by default, they show nothing in a notebook either."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


class Progress(Callback):
    """Shows a fit: a line an epoch and a bar below it on a terminal; in a notebook a bar, and a curve that grows.

    Where there is no terminal, in a file or a pipe, there are some twenty lines: the first epoch's, the last one's, and
    those between at equal distances, or half a minute apart. Of more than a thousand short epochs, a terminal does not
    show each one either.

    Args:
        every: whether each epoch has a line, and there is no bar.
        lines: where lines go; None for stdout. The bar goes to stderr.
    """

    def __init__(self, *, every: bool = False, lines: TextIO | None = None) -> None:
        self.every = every
        self._lines = lines
        self._bar: Any = None
        self._curve: Any = None
        self._headed = False

    def on_begin(self, trainer: Training) -> None:
        """Show the bar, where there is one."""
        fit = trainer.current
        assert fit is not None
        self._terminal = is_terminal(self._stream)
        self._distance = round_number(fit.last_epoch / MOST_LINES[self._terminal])
        self._printed = self._drawn = -math.inf
        self._shown = trainer.epoch  # the last epoch that has a line
        self._notebook = not self.every and in_notebook()
        if not self.every and (self._notebook or is_terminal(sys.stderr)):
            options = {"total": fit.last_step, "initial": trainer.step, "unit": " steps"}
            self._bar = new_bar(notebook=self._notebook, desc=self._next_epoch(trainer), **options)

    def on_step(self, trainer: Training) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(trainer.step - self._bar.n)

    def on_epoch(self, trainer: Training, row: HistoryRow) -> None:
        """Show an epoch's row, if it is time."""
        if self._bar is not None:
            self._bar.set_description_str(self._next_epoch(trainer), refresh=False)
        if self._notebook:
            self._draw(trainer, least=CURVE_SECONDS)
        elif self._is_due(row["epoch"]):
            self._print(trainer, row)

    def on_stop(self, trainer: Training) -> None:
        """Show the last epoch, if it has not been yet."""
        if self._notebook:
            self._draw(trainer)
        elif trainer.history and trainer.history[-1]["epoch"] > self._shown:
            self._print(trainer, trainer.history[-1])

    def on_end(self, trainer: Training) -> None:
        """Take the bar away; in a notebook it stays."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        stream = self._stream
        with contextlib.suppress(OSError):  # training goes on where nobody reads
            if self._bar is not None and stream is not None:
                self._bar.write(text, file=stream)
            elif stream is not None:
                print(text, file=stream, flush=True)

    def _is_due(self, epoch: int) -> bool:
        """Whether an epoch gets a line; the last one gets it when the training stops."""
        if self.every or epoch == 1 or epoch % self._distance == 0:
            return True
        return time.monotonic() - self._printed >= LINE_SECONDS[self._terminal]

    @property
    def _stream(self) -> TextIO | None:
        return sys.stdout if self._lines is None else self._lines

    def _next_epoch(self, trainer: Training) -> str:
        assert trainer.current is not None
        last = trainer.current.last_epoch
        return epoch_of(min(trainer.epoch + 1, last), last)

    def _print(self, trainer: Training, row: HistoryRow) -> None:
        assert trainer.current is not None
        header, line = epoch_line(row, trainer.current.last_epoch, width_of(self._stream))
        if not self._headed:
            self.write(header)
        self.write(line)
        self._headed, self._shown, self._printed = True, row["epoch"], time.monotonic()

    def _draw(self, trainer: Training, least: float = 0.0) -> None:
        """Draw the curves, or draw them anew in the same place."""
        from IPython.display import HTML, display

        if trainer.history and time.monotonic() - self._drawn >= least:
            picture = HTML(curves_svg(trainer.history))
            if self._curve is None:
                self._curve = display(picture, display_id=True)
            else:
                self._curve.update(picture)
            self._drawn = time.monotonic()


def epoch_line(row: HistoryRow, last_epoch: int, width: int) -> tuple[str, str]:
    """Return the header and the line of an epoch, each shorter than `width`: the metric, the loss, the seconds.

    Columns that have no room are left out, the last ones first. Of replicas, figures are their mean.

    >>> row = {"epoch": 3, "train_loss": 0.25, "train_accuracy": 0.9, "test_loss": 0.5, "test_accuracy": 0.8}
    >>> print("\\n".join(epoch_line(row | {"seconds": 1.5}, 20, 80)))
                  accuracy    test    loss  seconds
    epoch  3/20:    0.9000  0.8000  0.2500     1.50
    """
    row = with_deviations(row)
    metric = next(name for name in TITLES if f"train_{name}" in row)
    names = (f"train_{metric}", f"validation_{metric}", f"test_{metric}", "train_loss", "validation_loss")
    titles = (TITLES[metric], "validation", "test", "loss", "val. loss")
    cells = [(title, figure(row[name])) for title, name in zip(titles, names, strict=True) if name in row]
    cells.append(("seconds", f"{row['seconds']:.2f}"))
    line = f"{epoch_of(row['epoch'], last_epoch)}:"
    header = " " * len(line)
    for title, cell in cells:
        size = max(len(title), len(cell), 6) + 2
        if len(line) + size >= width:
            break
        header, line = f"{header}{title:>{size}}", f"{line}{cell:>{size}}"
    return header, line


def epoch_of(epoch: int, last_epoch: int) -> str:
    """An epoch's number in words, as wide as the last one's.

    >>> epoch_of(3, 20)
    'epoch  3/20'
    """
    return f"epoch {epoch:>{len(str(last_epoch))}}/{last_epoch}"


def figure(value: float) -> str:
    """A number in six to nine characters.

    >>> [figure(value) for value in (0.5, -3.25, 1234.5, 1e10)]
    ['0.5000', '-3.2500', '1234', '1e+10']
    """
    return f"{value:.4f}" if abs(value) < 100.0 else f"{value:.4g}"


def round_number(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... that is not below `least`.

    >>> [round_number(least) for least in (0.3, 1.0, 2.5, 8.35, 20.1)]
    [1, 1, 5, 10, 50]
    """
    unit = 1
    while True:
        for factor in (1, 2, 5):
            if factor * unit >= least:
                return factor * unit
        unit *= 10


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream, None where it was closed before Python began, is a terminal."""
    return stream is not None and stream.isatty()


def width_of(stream: TextIO | None) -> int:
    """Columns of the terminal behind a stream; `COLUMNS` where there is none."""
    try:
        return COLUMNS if stream is None else os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def default_verbosity() -> int:
    """Return the `verbose` of a fit that has none: 1 in a notebook, unless fits are hidden, and 0 elsewhere."""
    return int(in_notebook() and not _hidden.get())


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def new_bar(*, notebook: bool, **options: Any) -> Any:
    """Return a bar of tqdm: a notebook's where ipywidgets are installed, else one of text, which goes at its end."""
    if notebook and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as of_notebook

        return of_notebook(**options)
    from tqdm import tqdm

    return tqdm(dynamic_ncols=True, leave=False, file=sys.stderr, **options)
