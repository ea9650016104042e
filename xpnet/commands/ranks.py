"""Commands under mpiexec: all ranks run one, of which rank 0 alone speaks and writes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..core.device import Device, get_device, usable_processors
from ..core.errors import DivergedError
from ..training.ranks import Ranks
from . import cli

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")  # set by mpiexec of Open MPI, MPICH and others

Command = Callable[[Sequence[str] | None, Ranks | None], int]


def under_mpiexec() -> bool:
    """Whether this process is one of several that mpiexec, or a scheduler with PMIx, started."""
    return any(os.environ.get(name, "1") != "1" for name in MPI_SIZES) or "PMIX_RANK" in os.environ


def run(command: Command, arguments: Sequence[str] | None) -> int:
    """Run a command, as `cli.run` does; under mpiexec on all ranks, which all end where one of them fails."""
    if not under_mpiexec():
        return cli.run(lambda words: command(words, None), arguments)
    # A rank that exits while others start is no failure to mpiexec, and these would wait for it: it dies of Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from mpi4py import MPI

        ranks = Ranks(MPI.COMM_WORLD)
    except ImportError:
        cli.tell("error: under mpiexec, a command needs mpi4py: pip install 'xpnet[mpi]'")
        return 2
    finally:
        signal.signal(signal.SIGINT, before)
    if ranks.count == 1:
        return cli.run(lambda words: command(words, None), arguments)
    streams, alone = (sys.stdout, sys.stderr), False

    def guarded(words: Sequence[str] | None) -> int:
        nonlocal alone
        try:
            return command(words, ranks)
        except MPI.Exception:  # a rank is lost, as the witness says
            alone = True
            return 1
        except BaseException as error:
            alone = not (ranks.ended or isinstance(error, DivergedError))  # the others would wait for ever
            if alone and ranks.index:
                sys.stdout, sys.stderr = streams
                print(f"rank {ranks.index}: ", end="", file=sys.stderr)
            raise

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        if ranks.index:
            sys.stdout = sys.stderr = nowhere
        try:
            code = cli.run(guarded, arguments)
        finally:
            sys.stdout, sys.stderr = streams
    if alone:
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(code)
    return code


def device_of_rank(device: Device, requested: str, ranks: Ranks | None) -> Device:
    """Return the device of this rank: of several GPUs each rank of a machine gets its own, unless one is named."""
    if ranks is None or device.index is None or ":" in requested:
        return device
    return get_device(f"cuda:{ranks.number % device.xp.cuda.runtime.getDeviceCount()}")


def threads_of_rank(threads: int, ranks: Ranks | None) -> int:
    """Return the default number of threads of this rank: its share of the processors that others use, too."""
    return threads if ranks is None else max(1, min(threads, usable_processors() // ranks.beside))


@contextlib.contextmanager
def witness(ranks: Ranks | None, folder: Path | None) -> Iterator[None]:
    """Context in which the user is told where a rank is lost: mpiexec then kills the others, too.

    On rank 0, another process waits for the end of this one, and speaks where that comes without a farewell: after a
    signal that kills, or an error of MPI.
    """
    if ranks is None or ranks.index:
        yield
        return
    path = Path(__file__).with_name("witness.py")
    words = [sys.executable, "-I", "-S", str(path), *([] if folder is None else [str(folder)])]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    farewell = b"farewell"
    try:
        yield
    except Exception as error:
        farewell = b"" if type(error).__module__.startswith("mpi4py") else farewell
        raise
    finally:
        with contextlib.suppress(OSError):
            process.stdin.write(farewell)
            process.stdin.close()
        process.wait()
