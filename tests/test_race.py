"""The race: its reference, its problems, the zeros it counts, and a heat from start to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from programs import needs_llvm

from xpnet.compile import compile_step

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
sys.path.append(str(Path(__file__).parents[1] / "bench" / "peers"))  # last: tests/ has an `estimators` too
import make_speed_chart
from contest import Problem, epoch_order, he_normal, made_problem, zero_shares
from host import BASE, CONTENDERS, WITH_ZEROS, mean_loss
from race import Heat, checked_steps, gain, grouped, table
from reference import gradients, reference

NAMES = ("W", "b", "gamma")
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr("contest.DATA_BYTES", 2**18)


def layers_of(weights):
    return [dict(zip((*NAMES, "mean", "variance"), (a.copy() for a in one), strict=False)) for one in weights]


def training_loss(layers, x, t):
    """Cross entropy as in a training step: normalized by the batch."""
    for k, layer in enumerate(layers):
        x = x @ layer["W"]
        if "gamma" in layer:
            x = layer["gamma"] * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        x = x + layer["b"]
        x = np.maximum(x, 0.0) if k < len(layers) - 1 else x
    return float((np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(t)), t]).mean())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_references_gradients_are_central_differences(batch_norm):
    weights = he_normal((5, 4, 3, 2), batch_norm=batch_norm)
    weights = [tuple(a + 0.1 * rng.standard_normal(a.shape) for a in layer) for layer in weights]
    x, t = rng.standard_normal((8, 5)), rng.integers(0, 2, 8)
    layers, step = layers_of(weights), 1e-6
    found = gradients(layers_of(weights), x, t)
    assert [set(one) for one in found[:-1]] == [set(NAMES if batch_norm else NAMES[:2])] * 2
    for gradient, layer in zip(found, layers, strict=True):
        for name, got in gradient.items():
            wanted = np.empty_like(got)
            for index in np.ndindex(got.shape):
                kept = layer[name][index]
                ends = []
                for sign in (1.0, -1.0):
                    layer[name][index] = kept + sign * step
                    ends.append(training_loss(layers, x, t))
                layer[name][index] = kept
                wanted[index] = (ends[0] - ends[1]) / (2.0 * step)
            np.testing.assert_allclose(got, wanted, atol=1e-8)


def one_layer(optimizer, rate, **options):
    """Two inputs, one row a batch, and weights of zero: both classes have probability 1/2."""
    x, t = np.array([[2, 4]], np.uint8), np.array([1])
    return Problem((2, 2), 1, optimizer, rate, x, t, [(np.zeros((2, 2)), np.zeros(2))], **options)


def test_a_step_of_sgd_by_hand():
    ((w, b),) = reference(one_layer("sgd", 0.5, shift=1.0, scale=2.0), np.array([[0]]), False)
    # The inputs are 1/2 and 3/2, the logits' gradients 1/2 and -1/2.
    np.testing.assert_allclose(w, [[-0.125, 0.125], [-0.375, 0.375]])
    np.testing.assert_allclose(b, [-0.25, 0.25])


def test_a_step_of_adam_by_hand():
    """The first step is the rate times g / (|g| + epsilon), or where epsilon is first, its 31.6th part is not."""
    ((_, after),) = reference(one_layer("adam", 0.1), np.array([[0]]), False)
    ((_, first),) = reference(one_layer("adam", 0.1), np.array([[0]]), True)
    np.testing.assert_allclose(after, [-0.1 / (1.0 + 2e-8), 0.1 / (1.0 + 2e-8)], rtol=1e-12)
    root = np.sqrt(0.001)
    np.testing.assert_allclose(first[1], 0.1 * 0.5 / (0.5 + 1e-8 / root), rtol=1e-12)
    assert first[1] != after[1]


def test_running_statistics_by_hand():
    """Of 0 and 2, the mean is 1 and the unbiased variance 2; a tenth of both is taken over."""
    norm = np.ones(1), np.zeros(1), np.ones(1)
    weights = [(np.ones((1, 1)), np.zeros(1), *norm), (np.ones((1, 2)), np.zeros(2))]
    problem = Problem((1, 1, 2), 2, "sgd", 0.1, np.array([[0.0], [2.0]]), np.array([0, 1]), weights, scale=1.0)
    mean, variance = reference(problem, np.array([[0, 1]]), False)[0][3:]
    np.testing.assert_allclose([mean[0], variance[0]], [0.1, 0.9 + 0.2])


def test_shares_of_zeros_by_hand():
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 3.0], [0.0, 0.0]])  # 4 of 8
    weights = [
        (np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros(2)),  # behind ReLU: 1 0, 0 1, 2 0, 0 0
        (np.array([[1.0], [1.0]]), np.array([-1.0])),  # 0, 0, 1, 0
        (np.ones((1, 2)), np.zeros(2)),
    ]
    assert zero_shares(weights, x) == [4 / 8, 5 / 8, 3 / 4]


def test_shares_of_zeros_are_those_of_a_step():
    """Running statistics far from those of the rows would have all units silent."""
    weights = [
        (np.ones((1, 1)), np.zeros(1), np.ones(1), np.full(1, 100.0), np.ones(1)),
        (np.ones((1, 2)), np.zeros(2)),
    ]
    assert zero_shares(weights, np.array([[1.0], [2.0], [3.0], [5.0]])) == [0.0, 0.5]


def test_pixels_are_standardized_by_one_mean_and_deviation():
    plain, standardized, normalized = (
        made_problem((64, 6, 3), 64, "sgd", variant=one) for one in ("plain", "standardized", "batch-norm")
    )
    rows = slice(None)
    assert 0.003 < zero_shares(plain.weights, plain.inputs(rows))[0] < 0.005  # a byte in 256
    x = standardized.inputs(rows)
    np.testing.assert_allclose([x.mean(), x.std()], [0.0, 1.0], atol=1e-12)
    assert zero_shares(standardized.weights, x)[0] == 0.0
    for one in (standardized, normalized):
        np.testing.assert_array_equal(one.x, plain.x)
        np.testing.assert_array_equal(one.t, plain.t)
        np.testing.assert_array_equal(one.weights[0][0], plain.weights[0][0])
    assert [len(layer) for layer in normalized.weights] == [5, 2]
    rates = [made_problem((64, 6, 3), 64, "adam", variant=one).learning_rate for one in ("plain", "standardized")]
    assert rates == [0.001, 0.0001]


def test_rows_of_mnist_fill_a_power_of_two_of_batches():
    x, t = rng.integers(0, 256, (70, 784), dtype=np.uint8), rng.integers(0, 10, 70, dtype=np.uint8)
    problem = made_problem((784, 5, 10), 16, "adam", "mnist", "standardized", mnist=(x, t))
    np.testing.assert_array_equal(problem.x, x[:64])
    np.testing.assert_array_equal(problem.t, t[:64])


def test_a_table_is_normal_numbers_of_the_networks_type():
    problems = [made_problem((30, 5, 2), 200, "adam", "table", dtype=one) for one in ("float32", "float64")]
    for problem, dtype in zip(problems, ("float32", "float64"), strict=True):
        assert {problem.x.dtype, *(a.dtype for layer in problem.weights for a in layer)} == {np.dtype(dtype)}
        assert abs(problem.inputs(slice(None)).std() - 1.0) < 0.02
        assert 0.3 < problem.t.mean() < 0.7
    np.testing.assert_array_equal(problems[0].x, problems[1].x)


def test_a_problem_survives_its_file(tmp_path):
    problem = made_problem((30, 5, 4, 2), 200, "adam", "table", "batch-norm", "float64")
    problem.save(tmp_path / "problem.npz")
    read = Problem.load(tmp_path / "problem.npz", "cuda")
    assert (read.sizes, read.scale, read.dtype, read.device) == ((30, 5, 4, 2), 1.0, "float64", "cuda")
    assert read.batch_norm
    for one, other in zip(read.weights, problem.weights, strict=True):
        for array, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, wanted)


def test_fewer_steps_of_a_wide_network_are_compared():
    problem = made_problem((784, 100, 10), 128, "adam")
    assert checked_steps(problem) == 20
    wide = Problem((784, 2048, 2048, 2048, 10), 1024, "adam", 0.001, problem.x, problem.t, [])
    assert checked_steps(wide) == 4


ENTRIES = [entry for entry in CONTENDERS if entry.name in (BASE, WITH_ZEROS, "xpnet, eager", "scikit-learn")]


@needs_llvm
@pytest.mark.compiles
@pytest.mark.parametrize(("variant", "dtype"), [("batch-norm", "float64"), ("standardized", "float32")])
def test_a_heat_from_start_to_end(variant, dtype):
    pytest.importorskip("threadpoolctl")
    problem = made_problem((64, 50, 10), 64, "adam", "random", variant, dtype)
    result = Heat(problem, ENTRIES, checked=5, piece=0, patience=60.0).run(rounds=1, seconds=0.01)
    assert not result["wrong"] and not result["failed"]
    assert {BASE, WITH_ZEROS, "xpnet, eager"} <= set(result["step_us"])
    if variant == "batch-norm":
        assert "scikit-learn" in result["left_out"]
    for name in result["step_us"]:
        assert result["loss"][name] == pytest.approx(
            result["loss_of_reference" if name != "scikit-learn" else "loss_of_reference_epsilon_first"],
            rel=1e-9 if dtype == "float64" else 2e-3,
        )
        for when in ("start", "end"):
            of_input, hidden = result["zeros"][when][name]
            assert of_input == pytest.approx(1 / 256 if variant == "batch-norm" else 0.0, abs=5e-4)
            assert 0.3 < hidden < 0.8
        assert result["steps"][name] >= 7


def test_a_loss_that_is_off_is_wrong():
    problem = made_problem((20, 6, 3), 64, "sgd", dtype="float64")
    heat = Heat(problem, list(CONTENDERS), checked=2, piece=0, patience=1.0)
    right = reference(problem, epoch_order(len(problem.x), 64, 0)[:2], False)
    base, eager = CONTENDERS[0], CONTENDERS[3]
    heat._compare(base, right)
    heat._compare(eager, [(w, b + (0.001 if k else 0.0) * np.arange(len(b))) for k, (w, b) in enumerate(right)])
    assert list(heat.troubles["wrong"]) == [eager.name]
    heat._check_end(base.name, [(w * np.nan, b) for w, b in right])
    assert heat.troubles["wrong"][base.name] == "loss nan after the last step"


@needs_llvm
@pytest.mark.compiles
def test_zeros_are_multiplied_where_they_are_not_left_out(monkeypatch):
    pytest.importorskip("threadpoolctl")
    from xpnet_steps import keep_zeros

    from xpnet.compile.cpu import program

    def multiply(xp, a):
        a["y"][...] = a["x"] @ a["w"]

    arrays = {"x": np.zeros((512, 784), np.float32), "w": np.zeros((784, 128), np.float32)}
    arrays["y"] = np.zeros((512, 128), np.float32)
    sparse = [*compile_step(multiply, arrays)._sparse_vectors.values()]
    monkeypatch.setattr(program, "worthwhile", program.worthwhile)  # set back after the test
    keep_zeros()
    dense = [*compile_step(multiply, arrays)._sparse_vectors.values()]
    assert sparse != [None]
    assert dense == [None]


def heat_of(network, ratio, low, high, data="mnist"):
    """A result, as a race's file has it."""
    shares = {BASE: [0.811, 0.5, 0.62]}
    return {
        "network": network,
        "optimizer": "sgd",
        "data": data,
        "variant": "plain",
        "dtype": "float32",
        "base": BASE,
        "step_us": {BASE: 100.0, WITH_ZEROS: 100.0 * ratio},
        "ratio": {BASE: 1.0, WITH_ZEROS: ratio},
        "ratio_range": {BASE: (1.0, 1.0), WITH_ZEROS: (low, high)},
        "zeros": {"start": shares, "end": shares},
        "wrong": {},
    }


def test_the_table_says_which_columns_gain_by_zeros():
    heats = [heat_of("784-100x4-10 batch 128", 1.5, 1.4, 1.6), heat_of("30-100-2 batch 200", 1.1, 0.99, 1.2, "table")]
    assert [gain(one) for one in heats] == ["1.50 (1.40 to 1.60)", "not shown (0.99 to 1.20)"]
    (title,) = grouped(heats)
    text = table(title, heats)
    assert text.startswith("| sgd, float32, MNIST, pixels / 255: µs per step | 784-100x4-10 batch 128 | 30-100-2")
    assert "| gain by leaving out zeros | 1.50 (1.40 to 1.60) | not shown (0.99 to 1.20) |" in text
    assert "| zeros in the input, % | 81 | 81 |" in text
    assert "| behind each ReLU, at the end | 50 62 | 50 62 |" in text


def test_random_pixels_and_types_have_tables_of_their_own():
    one = heat_of("784-100x4-10 batch 128", 1.0, 1.0, 1.0)
    assert len(grouped([one, one | {"data": "random"}, one | {"dtype": "float64"}, one | {"data": "table"}])) == 3


def test_the_loss_is_that_of_the_running_statistics():
    weights = [
        (np.ones((1, 1)), np.zeros(1), np.ones(1), np.zeros(1), np.full(1, 4.0 - 1e-5)),
        (np.ones((1, 2)), np.zeros(2)),
    ]
    weights[1][0][0, 1] = 0.0
    # The unit is x / 2 = 1, the logits 1 and 0.
    assert mean_loss(weights, np.array([[2.0]]), np.array([0])) == pytest.approx(np.log(1.0 + np.exp(-1.0)))


def content_of(*results):
    machine = {"processor": "A CPU", "usable_processors": 2, "memory_gib": 4.0, "python": "3"}
    machine |= {"versions": {"numpy": "2"}, "commit": "0123456789", "changed_since": False}
    return machine | {"rounds": 7, "seconds": 0.2, "results": list(results)}


def test_the_page_says_which_columns_gain_by_zeros():
    first = heat_of("784-100x4-10 batch 128", 1.5, 1.4, 1.6)
    second = heat_of("30-100-2 batch 200", 1.1, 0.99, 1.2, "table")
    first["ratio"]["JAX, scan"], second["ratio"]["JAX, scan"] = 1.25, 2.5
    title = "784-100\N{MULTIPLICATION SIGN}4-10 with SGD"
    words = " ".join(make_speed_chart.section(content_of(first, second)).split())
    assert (
        f"Leaving out zeros makes xpnet 1.50 times as fast for {title}; of the other columns no gain is shown." in words
    )
    assert f"JAX's scan takes 1.25 times (for {title}) to 2.50 times as long as xpnet." in words
    assert "Measured in 7 rounds of turns of 0.2 s: A CPU, 2 processors usable, 4 GiB; Python 3, numpy 2;" in words
    assert "| zeros behind each ReLU at the end, % | 50 62 | 50 62 |" in words
    assert "No gain by leaving out zeros is shown." in make_speed_chart.section(content_of(second))
    trial = make_speed_chart.section(content_of(second) | {"rounds": 1})
    assert "A trial and no measurement, in 1 round of turns" in trial
    assert "Leaving out zeros" not in trial


def test_a_page_without_its_mark_is_an_error():
    with pytest.raises(SystemExit, match=r"README.md must have one"):
        make_speed_chart.replaced(make_speed_chart.ROOT / "README.md", "<picture>", "", "no picture")
