"""Compiled code on disk, steps that allocate nothing, and what happens without LLVM."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from programs import LLVM, code_folder, needs_llvm, program, recorded  # noqa: F401

from xpnet import MLP, Trainer
from xpnet.compile import api
from xpnet.compile.cpu import compiler as native
from xpnet.compile.cpu import runtime, target
from xpnet.compile.cpu.product import product_text
from xpnet.compile.numpy.program import Replay

pytestmark = needs_llvm
TEXT = "define i64 @answer(i64 %x) {\n  %y = add i64 %x, 42\n  ret i64 %y\n}\n"

# The code of a compiler that is gone is gone, too: none may go while something may call it.
KEPT = []


def compiler_in(folder):
    KEPT.append(native.Compiler(folder))
    return KEPT[-1]


def answer(compiler, x=0):
    from ctypes import CFUNCTYPE, c_int64

    return CFUNCTYPE(c_int64, c_int64)(compiler.address(TEXT))(x)


def test_code_is_found_by_the_next_process(tmp_path):
    first = compiler_in(tmp_path / "cache" / "code")
    assert answer(first) == 42
    assert answer(first, 8) == 50
    assert first.compiled == 1
    second = compiler_in(tmp_path / "cache" / "code")
    assert answer(second) == 42
    assert second.compiled == 0
    assert [path.suffix for path in (tmp_path / "cache" / "code").iterdir()] == [".code"], "a file is left over"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[: len(data) // 2], lambda data: b""]
)
def test_a_damaged_file_is_not_run(damage, tmp_path):
    assert answer(compiler_in(tmp_path)) == 42
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = compiler_in(tmp_path)
    assert answer(again) == 42
    assert again.compiled == 1
    after = compiler_in(tmp_path)
    assert answer(after) == 42
    assert after.compiled == 0, "the file was not put right"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    """Here: a file is in its place."""
    (tmp_path / "code").write_text("")
    one = compiler_in(tmp_path / "code")
    assert answer(one) == 42
    assert one.cache.folder is None
    assert answer(compiler_in(None)) == 42


def test_code_of_another_processor_is_not_taken(tmp_path):
    answer(compiler_in(tmp_path))
    other = compiler_in(tmp_path)
    other._made_for += " of another kind"
    answer(other)
    assert other.compiled == 1
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not target.is_x86(), reason="levels are x86-64's")
def test_code_for_a_lesser_processor(tmp_path, monkeypatch):
    """`XPNET_LLVM_CPU` names a level; each has its registers, and its own code on disk."""
    import llvmlite.binding

    host = llvmlite.binding.get_host_cpu_features()
    monkeypatch.delenv(target.TARGET, raising=False)
    answer(compiler_in(tmp_path))
    sizes = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 64}
    runnable = [level for level in sizes if host["avx512f" if level == "x86-64-v4" else "avx2"] or level < "x86-64-v3"]
    for place, level in enumerate(runnable):
        monkeypatch.setenv(target.TARGET, level)
        one = compiler_in(tmp_path)
        assert answer(one) == 42
        assert one.registers.size == sizes[level]
        assert one.compiled == 1
        assert len(list(tmp_path.iterdir())) == place + 2


def test_a_processor_that_cannot_be_had_is_not_compiled_for(monkeypatch):
    v2 = {"sse2", "cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"}
    assert target.level_features("x86-64-v2", dict.fromkeys(v2, True)).keys() == v2
    with pytest.raises(ValueError, match="XPNET_LLVM_CPU is x86-64-v3, and this processor has no avx, avx2, bmi"):
        target.level_features("x86-64-v3", dict.fromkeys(v2, True))
    monkeypatch.setenv(target.TARGET, "haswell")
    with pytest.raises(ValueError, match="one of x86-64, x86-64-v2, x86-64-v3, x86-64-v4, not 'haswell'"):
        compiler_in(None)


def test_one_text_for_networks_of_all_sizes(code_folder):  # noqa: F811
    """Another width and another batch compile nothing new."""
    compiler = native.compiler()

    def train(width, rows):
        model = MLP([7, width, 3])
        Trainer(model, batch_size=rows).fit(np.ones((rows, 7), np.float32), np.arange(rows) % 3)

    train(30, 40)
    before = compiler.compiled
    train(29, 46)
    assert compiler.compiled == before


def test_every_routine_compiles():
    """Of every type, whatever this machine's BLAS is."""
    compiler = compiler_in(None)
    texts = [
        runtime.driver(),
        *(product_text(np.dtype(kind)) for kind in ("float32", "float64")),
    ]
    assert len({compiler.address(text) for text in texts}) == 3
    assert compiler.compiled == 3


# A step allocates nothing


def descent(xp, a):
    h = xp.tanh(a["x"] @ a["W"])
    a["W"][...] = a["W"] - 0.01 * (a["x"].swapaxes(-1, -2) @ (h * (1.0 - h * h)))
    a["norm"][...] = xp.sqrt((h * h).sum(axis=-1)).max(axis=-1)


def descent_arrays(rng, rows, columns):
    x, W = rng.normal(size=(rows, 50)), rng.normal(size=(50, columns))
    return {"x": x, "W": W, "norm": np.zeros(())}


def peak_of(call):
    """Return by how many bytes Python's memory grew in a call, at most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_steps_of_a_program_allocate_nothing(rng):
    arrays = descent_arrays(rng, 40, 60)
    one = program(descent, arrays)
    one.run(arrays)
    single = peak_of(lambda: one.run(arrays))
    assert peak_of(lambda: one.run(arrays, 1000)) <= single + 200


def test_runs_of_a_program_leave_nothing_behind(rng):
    arrays = descent_arrays(rng, 5, 6)
    one = program(descent, arrays)
    tracemalloc.start()
    try:
        left = []
        for _ in range(6):
            for _ in range(2000):
                one.run(arrays)
            gc.collect()
            left.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # What NumPy keeps for its next small arrays is counted too, and grows now and then; a leak grows in every round.
    assert min(later - earlier for earlier, later in pairwise(left)) < 2000, "not a byte a run"


def test_steps_of_a_replay_make_no_arrays(rng):
    """Results have 480 kB each; a buffer of NumPy's own has 8,192 elements, 64 kB."""
    arrays = descent_arrays(rng, 1000, 60)
    one = Replay(recorded(descent, arrays))
    one.run(arrays)
    assert peak_of(lambda: one.run(arrays, 20)) < 240_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
def test_steps_of_a_program_fault_no_pages(rng):
    import resource

    arrays = descent_arrays(rng, 400, 300)
    one = program(descent, arrays)
    one.run(arrays, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    one.run(arrays, 100)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 50


# Without LLVM


@pytest.fixture
def no_llvm(monkeypatch):
    """As where llvmlite is not installed; what was compiled before stays, as programs may run it."""
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setattr(api, "compiler", native.compiler.__wrapped__)
    api.why_not_compiled.cache_clear()
    yield
    monkeypatch.undo()
    api.why_not_compiled.cache_clear()


def test_without_llvm_a_trainer_replays_and_says_how_to_do_better(no_llvm, blobs):
    found = []
    for compile in (True, False):
        trainer = Trainer(MLP([4, 8, 3], dtype="float64", dropout=0.2, batch_norm=True), batch_size=20, compile=compile)
        history = trainer.fit(*blobs, epochs=3, test=blobs)
        found.append((trainer.model.network.values, history[-1]["test_loss"]))
        words = "pip install 'xpnet[fast]'" if compile else "switched off"
        assert words in trainer.compiled
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-9, atol=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-9)


def test_an_llvm_that_does_not_work_is_said_in_words(no_llvm, monkeypatch):
    def broken(folder):
        raise RuntimeError("no target\nfor this machine")

    monkeypatch.setattr(native, "Compiler", broken)
    why = api.why_not_compiled()
    assert why.startswith("LLVM cannot be used: ") and "no target" in why
    assert "\n" not in why


def test_llvm_is_back():
    """The tests above have put everything back."""
    assert (api.why_not_compiled() is None) == LLVM
