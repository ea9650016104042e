"""Plans: a small network's, by hand; and that no thread is ever in another's way, by a checker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from programs import recorded
from random_programs import build, formulas, sizes

from xpnet import MLP, SGD, Adam, Trainer
from xpnet.compile import UntraceableError, record
from xpnet.compile.cpu.partition import PIECES, threaded_plan, useful_threads
from xpnet.compile.cpu.program import Program
from xpnet.compile.ir import Iota, View
from xpnet.compile.passes.instructions import Barrier

I, H, O, B = 6, 5, 3, 8  # noqa: E741


def two_layers(xp, a):
    """A step of gradient descent on the squares of a network with one hidden layer of ReLUs."""
    p, g, x = a["p"], a["g"], a["x"]
    W, b = p[:30].reshape(I, H), p[30:35].reshape(1, H)
    V, c = p[35:50].reshape(H, O), p[50:53].reshape(1, O)
    h = xp.maximum(x @ W + b, 0.0)
    d = (h @ V + c - a["t"]) / float(B)
    g[35:50].reshape(H, O)[...] = h.swapaxes(-1, -2) @ d
    g[50:53].reshape(1, O)[...] = d.sum(axis=-2, keepdims=True)
    e = xp.where(h > 0.0, d @ V.swapaxes(-1, -2), 0.0)
    g[:30].reshape(I, H)[...] = x.swapaxes(-1, -2) @ e
    g[30:35].reshape(1, H)[...] = e.sum(axis=-2, keepdims=True)
    p -= a["rate"] * g


def arrays():
    return {"p": np.ones(53), "g": np.zeros(53), "x": np.ones((B, I)), "t": np.ones((B, O)), "rate": np.array(0.1)}


def lines(plan):
    return [line.strip().partition("    #")[0] for line in str(Program(plan)).splitlines()]


def test_the_plan_of_two_layers_on_one_thread():
    """Five products; loops for bias and ReLU, the difference, ReLU's derivative, sums over the batch, and descent."""
    plan = threaded_plan(recorded(two_layers, arrays()))
    text = lines(plan)
    assert text[0].startswith("11 instructions for one thread")
    formulas = [line for line in text if " = " in line]
    assert formulas == [
        "r1 = x @ p[0:30]",
        "r2 = maximum((r1 + p[30:35]), 0.0)",
        "r3 = r2 @ p[35:50]",
        "r4 = ((r3 + p[50:53]) - t) / 8.0",
        "g[35:50] = r2.T @ r4",
        "t5 = sum(r4, axis=-2)",
        "g[50:53] = t5",
        "r6 = r4 @ p[35:50].T",
        "r7 = where((r2 > 0.0), r6, 0.0)",
        "g[0:30] = x.T @ r7",
        "t8 = sum(r7, axis=-2)",
        "g[30:35] = t8",
        "p = (p - (rate * g))",
    ]


def test_results_share_offsets_with_those_that_are_read_no_more():
    """Of six results three share a place with another: each loop writes where it has read."""
    plan = threaded_plan(recorded(two_layers, arrays()))
    product, relu, outputs, difference, back, masked = plan.offsets.values()
    assert product == relu
    assert outputs == difference
    assert back == masked
    assert len({relu, difference, masked}) == 3
    hidden, output = B * H * 8, B * O * 8
    assert plan.size == 2 * hidden + output
    assert all(place % 64 == 0 for place in plan.offsets.values())


def test_two_threads_have_three_barriers():
    """Once the batch is done, before sums over it; once the gradient is, before the step; and after the step."""
    text = lines(threaded_plan(recorded(two_layers, arrays()), 2))
    assert text[0].startswith("11 instructions for 2 threads and 3 barriers")
    first, second, third, last = "\n".join(text).split("--- barrier")
    assert "r7 = " not in second and first.count("divided by rows") == 6
    assert "g[35:50] = " in second and "g[0:30] = " in second and second.count("sum(") == 2
    assert "p = (p - (rate * g))" in third
    assert not last.strip()


def trainers_step(model, optimizer, x, y, monkeypatch, **options):
    """Return the step that a trainer would have compiled, its arrays, and which of them it gathers rows of."""
    caught = []

    def catch(step, arrays, *, gathered, **_):
        caught.append((step, arrays, gathered))
        raise UntraceableError("caught")

    monkeypatch.setattr("xpnet.model.compiled.compile_step", catch)
    Trainer(model, optimizer, batch_size=len(x)).fit(x, y, **options)
    return caught[0]


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_plain_network_has_three_barriers(depth, optimizer, monkeypatch):
    x, y = np.ones((64, 9), np.float32), np.arange(64) % 4
    step, given, gathered = trainers_step(MLP([9, *[12] * depth, 4]), optimizer(), x, y, monkeypatch)
    plan = threaded_plan(record(step, given, gathered), 2)
    assert sum(isinstance(one, Barrier) for one in plan.instructions) == 3


def test_threads_are_for_steps_that_are_worth_them():
    def step(xp, a):
        a["y"][...] = a["x"] @ a["W"]

    for rows, width, most, threads in (
        (8, 8, 4, 1),
        (512, 512, 4, 4),
        (512, 512, 1, 1),
        (64, 1024, 8, 2),
        (32, 4096, 8, 1),
    ):
        of = {"x": np.ones((rows, width)), "W": np.ones((width, width)), "y": np.ones((rows, width))}
        assert useful_threads(recorded(step, of), most) == threads


def test_no_thread_is_started_for_a_short_call():
    def step(xp, a):
        a["y"][...] = a["x"] @ a["W"]

    of = {"x": np.ones((200, 100)), "W": np.ones((100, 100)), "y": np.ones((200, 100))}  # 2 million multiplications
    found = [useful_threads(recorded(step, of), 2, steps_per_call) for steps_per_call in (1, 3, 10, 1000, None)]
    assert found == [1, 1, 2, 2, 2]


# A checker: it knows of a plan what runs when, and how it is divided, and finds out which bytes each thread touches


def three(shape):
    return ((1, 1, 1) + shape)[-3:]


class Checker:
    """Goes through a plan thread by thread, and keeps account of who touches which byte.

    Between two barriers threads run as they like: what one writes there, no other may touch. Given that, the order of
    the instructions is the order of events, and each byte that is read must still hold what the plan says it does.
    """

    def __init__(self, plan):
        self.plan = plan
        self.start = {}  # of leaves, as addresses beyond the workspace
        end = plan.size
        for leaf in plan.trace.inputs:
            self.start[leaf] = end
            end += int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        self.start |= plan.offsets
        self.holds = np.zeros(end, np.int64)
        self.writers, self.touchers = np.zeros(end, np.int64), np.zeros(end, np.int64)
        self.ids = {source: number for number, source in enumerate(self.start, start=1)}

    def elements(self, view):
        """The place of each element of a view, in its source."""
        if view.gather is not None and view.gather.index is None:  # any of its row
            view = replace(view, shape=(*view.shape[:-1], view.gather.rows), gather=None)
        index = np.full(view.shape, view.offset)
        for axis, stride in enumerate(view.strides):
            index += stride * np.arange(view.shape[axis]).reshape((-1,) + (1,) * (view.ndim - axis - 1))
        if view.gather is not None:  # any of the rows there are
            index = np.arange(int(np.prod(view.source.shape))).reshape((-1,) + (1,) * max(view.ndim - 1, 0))
        return index

    def addresses(self, view, domain, division, thread):
        """The addresses of what a thread touches of a view."""
        index = self.elements(view)
        of_row = view.gather is not None and view.gather.index is None and division[0] != "columns"
        if domain is not None and (view.gather is None or of_row):
            domain = (*domain[:2], index.shape[-1]) if of_row else domain
            index = self.part(np.broadcast_to(index.reshape(three(index.shape)), domain), division, thread)
        itemsize = view.dtype.itemsize
        first = self.start[view.source] + np.unique(index) * itemsize
        return (first[:, None] + np.arange(itemsize)).reshape(-1)

    def part(self, index, division, thread):
        threads, (R, rows, columns) = self.plan.threads, index.shape
        if division[0] == "one":
            return index if thread == 0 else index[:, :0]
        if division[0] == "rows":
            return index.reshape(R * rows, columns)[self.span(R * rows, thread, threads)]
        blocks = self.span(-(-columns // 16), thread, threads)
        return index[:, :, 16 * blocks.start : 16 * blocks.stop]

    @staticmethod
    def span(count, part, parts):
        return slice(count * part // parts, count * (part + 1) // parts)

    def read_by(self, argument, loop, stage):
        """The memory that a pass reads for an argument, through what is done again where it is needed, as in `uses`."""
        if not isinstance(argument, View) or isinstance(argument.source, Iota):
            return
        source = argument.source
        if argument.gather is not None and argument.gather.index is not None:
            yield argument.gather.index, None
        if source in loop.stage:
            earlier = loop.stage[source] < stage
            if source.kind == "reduce" or (earlier and loop.invariant(source)):
                return  # in a register
            if earlier and source in loop.materialized:
                yield argument, loop.domain
                return
        if source in self.plan.inlining.inlined or source in loop.stage:
            for one in source.arguments:
                yield from self.read_by(one, loop, stage)
        else:
            yield argument, loop.domain

    def uses(self, instruction):
        """What an instruction reads and writes, pass by pass, and the elements that it goes over; None: all."""
        if hasattr(instruction, "matrices"):
            a, b, c = instruction.matrices
            rows = int(np.prod(c.shape[:-1]))
            alike = int(np.prod(a.shape[:-1])) == rows  # or else replicas share a factor
            return [([(a, three(a.shape) if alike else None), (b, None)], [(c, three(c.shape))])]
        passes = []
        for stage in range(instruction.stages):
            reads, writes = [], []
            for operation in instruction.operations:
                if instruction.stage[operation] == stage:
                    for argument in operation.arguments:
                        reads += self.read_by(argument, instruction, stage)
                    if operation.target is not None:
                        writes.append((operation.target, instruction.domain))
                    if operation in instruction.materialized:
                        writes.append((operation.result, instruction.domain))
            passes.append((reads, writes))
        return passes

    def touch(self, addresses, thread, writes):
        other = ~(1 << thread)
        before = self.touchers if writes else self.writers
        assert not (before[addresses] & other).any(), "two threads touch a byte between barriers, and one writes"
        self.touchers[addresses] |= 1 << thread
        if writes:
            self.writers[addresses] |= 1 << thread

    def run(self):
        """Two steps, since the second one begins in what the first has left."""
        for leaf in self.plan.trace.inputs:
            size = int(np.prod(leaf.shape)) * leaf.dtype.itemsize
            self.holds[self.start[leaf] : self.start[leaf] + size] = self.ids[leaf]
        for instruction in [*self.plan.instructions] * 2:
            if instruction not in self.plan.divisions:
                self.writers[...] = self.touchers[...] = 0
                continue
            division = self.plan.divisions[instruction]
            for reads, writes in self.uses(instruction):
                for thread in range(self.plan.threads):
                    for view, domain in reads:
                        at = self.addresses(view, domain, division, thread)
                        self.touch(at, thread, writes=False)
                        assert (self.holds[at] == self.ids[view.source]).all(), "a result was written over too early"
                for thread in range(self.plan.threads):
                    for view, domain in writes:
                        at = self.addresses(view, domain, division, thread)
                        self.touch(at, thread, writes=True)
                        self.holds[at] = self.ids[view.source]
            if self.plan.threads == 1:
                self.writers[...] = self.touchers[...] = 0


@settings(derandomize=True, deadline=None, max_examples=60, database=None, phases=[Phase.generate])
@given(formula=formulas, size=sizes())
def test_no_thread_is_in_anothers_way(formula, size):
    step, given = build(formula, "float32", size)
    trace = recorded(step, given)
    for threads in (1, 2, 3):
        Checker(threaded_plan(trace, threads)).run()


def test_the_checker_sees_a_missing_barrier():
    plan = threaded_plan(recorded(two_layers, arrays()), 2)
    Checker(plan).run()
    kept = plan.instructions
    for number, one in enumerate(kept[:-1]):
        if one not in plan.divisions:
            plan.instructions = kept[:number] + kept[number + 1 :]
            with pytest.raises(AssertionError, match="two threads"):
                Checker(plan).run()


def test_the_checker_sees_a_place_that_is_taken():
    plan = threaded_plan(recorded(two_layers, arrays()))
    Checker(plan).run()
    relu, difference = list(plan.offsets)[1], list(plan.offsets)[3]
    plan.offsets[difference] = plan.offsets[relu]
    with pytest.raises(AssertionError, match="written over"):
        Checker(plan).run()


@pytest.mark.parametrize("threads", [2, 3])
def test_a_thread_updates_what_it_has_computed(threads):
    """A gradient of 96 rows, 16 a piece, and behind it one of as many: each thread has its third, or half, of both."""
    n = 2048 * 48 // 96

    def step(xp, a):
        for k in (0, 1):
            a["g"][k * 96 * n : (k + 1) * 96 * n].reshape(96, n)[...] = a["x"].swapaxes(-1, -2) @ a["d"]
        a["p"] -= a["g"]

    arrays = {"x": np.ones((8, 96)), "d": np.ones((8, n)), "g": np.zeros(192 * n), "p": np.zeros(192 * n)}
    (order,) = threaded_plan(recorded(step, arrays), threads).in_pieces.values()
    pieces, halves = PIECES * threads, 2 * threads
    assert sorted(order) == list(range(pieces))
    for part in range(threads):
        own = {piece * halves // pieces % threads for piece in order[part * PIECES : (part + 1) * PIECES]}
        assert own == {part}
