"""The threads of NumPy's BLAS, whichever it is. scripts/other_blas.sh runs these tests on several."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from xpnet.compile.cpu import blas
from xpnet.core.device import blas_kernels, limit_threads, usable_processors


class Threads:
    """A number of threads with functions that get and set it: of a process, or of each thread."""

    def __init__(self, number, *, per_thread=False):
        self.kept = threading.local() if per_thread else SimpleNamespace()
        self.number = number

    def get(self):
        return getattr(self.kept, "number", self.number)

    def set(self, number):
        self.kept.number = number or self.number


def openblas(kind, *, prefix="", suffix=""):
    """OpenBLAS's functions, and OpenMP's, for three threads."""
    own, openmp = Threads(3), Threads(3, per_thread=True)
    functions = {"get_parallel": lambda: kind, "get_num_threads": own.get, "set_num_threads": own.set}
    named = {f"{prefix}openblas_{name}{suffix}": function for name, function in functions.items()}
    return SimpleNamespace(**named, omp_get_max_threads=openmp.get, omp_set_num_threads=openmp.set)


def mkl():
    threads = Threads(3, per_thread=True)
    return SimpleNamespace(MKL_Get_Max_Threads=threads.get, MKL_Set_Num_Threads_Local=threads.set, threads=threads)


LIBRARIES = {
    "of NumPy's wheel": (openblas(1, prefix="scipy_", suffix="64_"), False),
    "of a distribution": (openblas(1), False),
    "on OpenMP": (openblas(blas.OPENMP), True),
    "MKL": (mkl(), True),
}


@pytest.mark.parametrize(("library", "per_thread"), LIBRARIES.values(), ids=LIBRARIES)
def test_one_thread(library, per_thread):
    """Nested, in two threads that do not leave in the order in which they came, and after an error."""
    found = blas.blas_of(library)
    seen, inside, leave = [], threading.Event(), threading.Event()

    def other():
        with found.one_thread():
            seen.append((found.threads, found._get()))
            inside.set()
            leave.wait(30)
        seen.append((found.threads, found._get()))

    assert (found.threads, found._get()) == (3, 3)
    with found.one_thread():
        assert (found.threads, found._get()) == (3, 1)
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(30)
        with pytest.raises(KeyError), found.one_thread():
            raise KeyError
        assert found._get() == 1, "the outer context goes on"
    assert (found.threads, found._get()) == (3, 3 if per_thread else 1), "the other thread may be inside yet"
    leave.set()
    thread.join(30)
    assert seen == [(3, 1), (3, 3)]
    assert found._get() == 3


def test_mkl_obeys_its_limit_for_all_threads_again():
    """What is set for one thread goes before what is set for all of them, so it must be unset."""
    library = mkl()
    with blas.blas_of(library).one_thread():
        library.threads.number = 2
    assert library.MKL_Get_Max_Threads() == 2


def test_another_blas():
    assert blas.blas_of(SimpleNamespace(omp_get_max_threads=lambda: 3, cblas_sgemm=None)) is None


def test_the_blas_of_this_numpy():
    found = blas.find()
    if found is None:
        pytest.skip("NumPy's BLAS is not a known one")
    with limit_threads(2):
        most = found.threads
        assert most == 2 or usable_processors() == 1, "MKL has no more threads than processors"
        with blas.one_thread():
            assert (blas.threads(), found.threads, found._get()) == (2, most, 1)
        assert found._get() == most


def in_fork(check):
    """Whether a check holds in a fork; False, too, where it has not ended after 20 seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if check() else 2
        finally:
            os._exit(code)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_product_in_a_fork():
    """It ends, with any BLAS, where NumPy has multiplied with several threads before."""
    a = np.ones((400, 400))

    def check():
        with blas.one_thread():
            small = bool((a @ a == 400).all())
        return small and bool((a @ a == 400).all())

    with limit_threads(2):
        assert check()
        assert in_fork(check)
        with blas.one_thread():
            assert in_fork(check)


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_is_in_it():
    found, inside, leave = blas.find(), threading.Event(), threading.Event()

    def other():
        with blas.one_thread():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with limit_threads(2):
        thread.start()
        assert inside.wait(30)
        expected = found and (found.threads if found._forks else 1)
        held = in_fork(lambda: found is None or found._get() == found.threads == expected)
        leave.set()
        thread.join(30)
        assert held


def test_threads_of_a_blas_that_is_not_known(monkeypatch):
    """The limit counts, or what threadpoolctl knows, or else the processors and OMP_NUM_THREADS."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(blas, "find", lambda: None)
    known = [
        {"user_api": "blas", "internal_api": "flexiblas", "num_threads": 3},
        {"user_api": "blas", "internal_api": "blis", "num_threads": 1},
        {"user_api": "openmp", "internal_api": "openmp", "num_threads": 7},
    ]
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: known)
    assert blas.threads() == 3
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: known[1:])
    monkeypatch.setattr(blas, "usable_processors", lambda: 5)
    assert blas.threads() == 5
    for value, expected in [("2", 2), ("9", 5), (" 4,2", 4), ("0", 5), ("all", 5), ("", 5)]:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert blas.threads() == expected, value
    with limit_threads(1):
        assert blas.threads() == 1
        with limit_threads(3):
            assert blas.threads() == 3
        with blas.one_thread():
            assert blas.threads() == 1
    assert blas.threads() == 5


def test_a_blas_that_cannot_be_asked_goes_by_what_numpy_was_built_with(monkeypatch):
    monkeypatch.setattr("threadpoolctl.threadpool_info", list)
    for built, name in [
        ({"name": "blas", "version": "3.11"}, "blas 3.11"),
        ({"name": "blas"}, "blas"),
        ({}, "unknown"),
    ]:
        config = {"Build Dependencies": {"blas": built}}
        monkeypatch.setattr(np, "show_config", lambda mode, config=config: config)
        assert blas_kernels() == {name: "unknown"}


@pytest.mark.parametrize(("library", "faster"), [("accelerate", True), ("scipy-openblas", False), ("mkl-sdl", False)])
def test_numpys_own_products_are_used_with_accelerate(monkeypatch, library, faster):
    monkeypatch.setattr(np, "show_config", lambda mode: {"Build Dependencies": {"blas": {"name": library}}})
    assert blas.numpy_is_faster.__wrapped__() is faster
