"""Plans and kernels for a GPU, which need none: nodes of a step, epilogues, grids, PTX, and what ptxas says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from programs import needs_llvm, recorded

from xpnet import MLP, Adam, Trainer
from xpnet.compile import record
from xpnet.compile.cuda.compiler import Compiler
from xpnet.compile.cuda.mapping import Kernel, grid_of
from xpnet.compile.cuda.plan import documented, launch_plan
from xpnet.compile.cuda.position import Advance, Fetch, Start
from xpnet.compile.cuda.target import ARCHITECTURES, architecture_of
from xpnet.compile.ir import Input
from xpnet.compile.llvm.cache import CodeCache
from xpnet.compile.passes.instructions import Loop, Product
from xpnet.compile.types import UntraceableError
from xpnet.nn import LayerNorm, Linear, ReLU, Sequential
from xpnet.optim import Momentum

NETWORKS = {
    "plain": lambda: MLP([20, 30, 30, 4]),
    "replicas": lambda: MLP([20, 30, 30, 4], replicas=3),
    "float64": lambda: MLP([20, 30, 4], dtype="float64"),
    "batch normalization": lambda: MLP([20, 30, 30, 4], batch_norm=True, dropout=0.3),
    "layer normalization": lambda: MLP.of(Sequential([Linear(20, 600), LayerNorm(600), ReLU(), Linear(600, 4)])),
    "tanh": lambda: MLP([20, 30, 4], activation="tanh"),
    "gelu, wide": lambda: MLP([20, 700, 4], activation="gelu"),
}


def trainers_trace(model, optimizer, rows=64):
    """The trace of the step that a trainer would compile."""
    found = []

    def catch(step, arrays, *, gathered, per_step, **_):
        found.append(record(step, arrays, gathered, per_step))
        raise UntraceableError("caught")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xpnet.model.compiled.compile_step", catch)
        x = np.ones((rows, model.in_features), np.float32)
        Trainer(model, optimizer, batch_size=rows).fit(x, np.arange(rows) % model.out_features)
    return found[0]


def loops(launch):
    return [one for one in launch if isinstance(one, Loop)]


def texts(plan):
    """The LLVM text of each kernel of a plan."""
    kernels = [Kernel(loops(launch), plan.inlining) for launch in plan.launches if loops(launch)]
    return [kernel.text for kernel in kernels]


@pytest.fixture(scope="module")
def ptx():
    """PTX of an LLVM text for an architecture."""
    compilers = {one: Compiler(one, CodeCache(None)) for one in ARCHITECTURES}
    return lambda text, architecture: compilers[architecture].ptx(text).decode()


# Nodes


@pytest.mark.parametrize("replicas", [None, 8])
def test_nodes_of_a_step(replicas):
    """One fetches the step's inputs; the sums for the gradients of all biases are one."""
    trace = trainers_trace(MLP([784, 100, 100, 100, 100, 10], replicas=replicas), Adam(), 128)
    with_epilogues, without = (launch_plan(trace, supports) for supports in (documented, lambda product: False))
    assert 1 + len(with_epilogues.launches) == 20
    assert 1 + len(without.launches) == 28
    assert sum(isinstance(one, Product) for one in without.instructions) == 14


def test_loops_that_need_each_other_are_launched_one_after_the_other():
    def step(xp, a):
        total = a["x"].sum(axis=-2, keepdims=True)
        a["y"][...] = total
        a["z"][...] = (a["x"] - xp.tanh(total)).sum(axis=-2, keepdims=True)
        a["other"][...] = a["w"].sum(axis=-2, keepdims=True)

    names = {"x": (40, 8), "y": (1, 8), "z": (1, 8), "w": (40, 8), "other": (1, 8)}
    plan = launch_plan(recorded(step, {name: np.ones(shape) for name, shape in names.items()}), documented)
    place = {}
    for number, launch in enumerate(plan.launches):
        for loop in loops(launch):
            place |= {operation.target.source.name: number for operation in loop.operations if operation.target}
    assert place["z"] >= place["y"]
    assert any(len(launch) > 1 for launch in plan.launches)
    assert place["other"] in (place["y"], place["z"])


@needs_llvm
def test_the_loops_of_a_launch_have_a_table_of_4_kb():
    """Eight loops of 250 entries each are no one launch."""

    def long(xp, a):
        for name in a:
            z = a[name]
            for j in range(60):
                z = z * (1.0 + j / 3.0) + 0.5 * j
            a[name][...] = z

    plan = launch_plan(recorded(long, {str(n): np.ones((4, n), np.float32) for n in range(2, 10)}), documented)
    tables = [len(Kernel(loops(launch), plan.inlining).table) for launch in plan.launches]
    assert max(tables) <= 512 and len(tables) > 1


@needs_llvm
def test_a_large_block_has_registers_for_all_its_threads(ptx):
    """ptxas gives a thread up to 255, and a block has 65,536."""

    def normalized(xp, a):
        a["y"][...] = a["x"] - a["x"].sum(axis=-1, keepdims=True)

    for columns, limited in ((5000, True), (50, False)):
        x = np.ones((3, columns), np.float32)
        (text,) = texts(launch_plan(recorded(normalized, {"x": x, "y": x}), documented))
        assert (".maxntid 1024" in ptx(text, 90)) == limited


# Epilogues


def two_layers(xp, a):
    h = xp.maximum(a["x"] @ a["W"] + a["b"], 0.0)
    a["y"][...] = h @ a["V"]
    e = xp.where(h > 0.0, a["d"] @ a["V"].swapaxes(-1, -2), 0.0)
    a["dW"][...] = a["x"].swapaxes(-1, -2) @ e


def two_layers_arrays(**others):
    shapes = {"x": (6, 4), "W": (4, 8), "b": (8,), "V": (8, 3), "y": (6, 3), "d": (6, 3), "dW": (4, 8)}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | others


def epilogues(step, arrays, supports=documented):
    plan = launch_plan(recorded(step, arrays), supports)
    return [one.epilogue for one in plan.instructions if isinstance(one, Product)]


def test_a_bias_and_a_relu_are_the_products_own():
    first, last, back, weights = epilogues(two_layers, two_layers_arrays())
    assert first.relu and first.kept and isinstance(first.bias.source, Input) and first.bias.source.name == "b"
    assert back.relu_of is not None and back.relu_of.epilogue is first
    assert last is weights is None


def test_what_is_not_a_row_is_no_bias():
    """A bias of each row, one that is assigned to before, one that is a result, and one of another type."""
    arrays = two_layers_arrays(b=np.ones((6, 1), np.float32))
    assert epilogues(two_layers, arrays)[0] is None

    def computed(xp, a):
        two_layers(xp, {**a, "b": xp.exp(a["b"]).sum(axis=-1, keepdims=True) * a["b"]})

    assert epilogues(computed, two_layers_arrays())[0] is None

    def wider(xp, a):
        a["h"][...] = xp.maximum(a["x"] @ a["W"] + a["b"], 0.0)

    assert epilogues(wider, two_layers_arrays(b=np.ones(8), h=np.ones((6, 8))))[0] is None


def test_another_bound_than_zero_is_no_relu():
    def shifted(xp, a):
        h = xp.maximum(a["x"] @ a["W"] + a["b"], 0.5)
        a["y"][...] = h @ a["V"]
        e = xp.where(h > 0.5, a["d"] @ a["V"].swapaxes(-1, -2), 0.0)
        a["dW"][...] = a["x"].swapaxes(-1, -2) @ e

    assert epilogues(shifted, two_layers_arrays()) == [None] * 4


def test_a_derivative_needs_that_the_relu_keeps_its_signs():
    def supports(product):
        return not product.epilogue.kept

    first, _, back, _ = epilogues(two_layers, two_layers_arrays(), supports)
    assert first.relu and not first.kept
    assert back is None


# Kernels


def test_grids():
    shapes = {
        None: ((1, 3, 100), 3, (128, 1)),
        "columns": ((2, 5, 10), 3, (32, 4)),
        "rows": ((3, 128, 100), 12, (32, 32)),
    }
    for along, (domain, blocks, threads) in shapes.items():
        grid = grid_of(Loop(domain, along), None)
        assert (grid.blocks, grid.threads) == (blocks, threads)
    assert grid_of(Loop((1, 1, 100_000), "columns"), None).threads == (1024, 1)
    assert grid_of(Loop((1, 4096, 1), "rows"), None).threads == (1, 1024)


@needs_llvm
def test_a_text_is_the_same_for_all_widths():
    first, second = (
        set(texts(launch_plan(trainers_trace(MLP([20, *hidden, 4]), Adam(), rows), documented)))
        for hidden, rows in (((30, 30), 64), ((50, 40), 32))
    )
    assert first == second


@needs_llvm
def test_a_loop_of_more_numbers_than_a_kernel_takes():
    def step(xp, a):
        total = a["y"]
        for number in range(180):
            total = total + a[f"x{number}"]
        a["y"][...] = total

    arrays = {f"x{number}": np.ones((4, 4)) for number in range(180)} | {"y": np.ones((4, 4))}
    plan = launch_plan(recorded(step, arrays), documented)
    with pytest.raises(ValueError, match="a loop of 5.. sizes, strides and numbers, and a kernel takes 512"):
        texts(plan)


@needs_llvm
def test_large_loops_move_four_elements_at_a_time(ptx):
    """Adam's of 1.3 million parameters does; that of rows which do not begin at multiples of four does not."""
    plan = launch_plan(trainers_trace(MLP([400, 1000, 900, 4]), Adam()), documented)
    (adam,) = [text for text in texts(plan) if "sqrt" in text]
    code = ptx(adam, 90)
    assert code.count("ld.global.v4") == 4 and code.count("st.global.v4") == 3

    def step(xp, a):
        a["y"][...] = a["x"] * 2.0

    for columns, found in ((512, True), (514, False)):
        x = np.ones((600, columns), np.float32)
        (text,) = texts(launch_plan(recorded(step, {"x": x, "y": x}), documented))
        assert ("v4" in ptx(text, 90)) == found


@needs_llvm
@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_keep_nothing_in_local_memory(name, ptx):
    """LLVM finds registers for all variables, and addresses global memory as such."""
    plan = launch_plan(trainers_trace(NETWORKS[name](), Adam()), documented)
    for text in texts(plan):
        code = ptx(text, 90)
        assert ".local" not in code and ".func" not in code
        assert re.search(r"\bld\.global", code) and not re.search(r"\b(ld|st)\.(b|f|u|s)\d+", code)
        assert ".target sm_90" in code


@pytest.mark.parametrize(("capability", "found"), [(70, None), (75, 75), (87, 86), (90, 90), (103, 100), (121, 120)])
def test_the_architecture_of_a_device(capability, found):
    assert architecture_of(capability) == found


def ptxas():
    """NVIDIA's assembler: of its wheel, or on the PATH."""
    wheel = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    return next(map(str, wheel.glob("*/bin/ptxas")), None) or shutil.which("ptxas")


needs_ptxas = pytest.mark.skipif(ptxas() is None, reason="needs ptxas: pip install nvidia-cuda-nvcc")


@needs_llvm
@needs_ptxas
@pytest.mark.parametrize("architecture", [75, 80, 90, 120])
def test_ptxas_takes_all_kernels_without_spills(architecture, ptx, tmp_path):
    """A program has all kernels of the spread of networks, each under a name of its own."""
    found = [Start(4).kernel, Advance(1).kernel, Fetch([8, 4], advances=True).kernel]
    for make in NETWORKS.values():
        for optimizer in (Adam(), Momentum(weight_decay=0.01, clip_norm=1.0)):
            found += texts(launch_plan(trainers_trace(make(), optimizer), documented))
    modules = dict.fromkeys(found)
    assert len(modules) > 30
    for number, text in enumerate(modules):
        (tmp_path / f"{number}.ptx").write_text(ptx(text, architecture), encoding="utf-8")
    files = [f"{number}.ptx" for number in range(len(modules))]
    for file in files:
        command = [ptxas(), "-v", f"-arch=sm_{architecture}", file, "-o", "out.cubin"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr


# The command


def test_the_plan_for_an_architecture_needs_no_gpu(run):
    from xpnet.commands import train

    code, out, err = run(train, "--dataset", "digits", "--hidden", 30, "--plan-for", "sm_90")
    first, estimate, *rest = out.splitlines()
    assert (code, err) == (0, "")
    assert "sm_90, 11 nodes of a CUDA graph: 6 kernels and 5 products" in first
    assert re.fullmatch(r"\d+ us a step, an estimate for an H200 and not measured", estimate)
    assert any("maximum(" in line and " @ " in line for line in rest)
    code, out, err = run(train, "--plan-for", "sm_70")
    assert (code, out) == (2, "") and "'sm_70' is no architecture" in err
