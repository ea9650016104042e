"""`train --replicas` and `--seeds`: several networks at once, and the mean and deviation of their results."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from command_line import DIGITS, SHORT

from xpnet import MLP, evaluate, load_digits
from xpnet.commands import options, predict, train
from xpnet.commands.results import seeds_in_words
from xpnet.training.spread import with_deviations

pytestmark = pytest.mark.usefixtures("no_downloads")

FLOAT64 = (*SHORT, "--hidden", 20, "--dtype", "float64", "--no-compile", "--quiet", "--json")
PAIR = load_digits().x_test, load_digits().y_test


def result_of(run, *words):
    """The result of a run that succeeds."""
    code, out, err = run(train, *words)
    assert code == 0, err
    return json.loads(out)


def test_mean_and_deviation_are_those_of_single_runs(run, tmp_path):
    """Each replica is the network with its seed, trained alone on the same batches."""
    folder = tmp_path / "run"
    result = result_of(run, *FLOAT64, "--seeds", "3-4", 9, "--seed", 1, "--out", folder)
    alone = [result_of(run, *FLOAT64, "--seeds", seed, "--seed", 1) for seed in (3, 4, 9)]
    assert [one["seed"] for one in result["per_seed"]] == [3, 4, 9]
    assert (result["replicas"], result["seed"]) == (3, 1)
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        each = [one[name] for one in alone]
        assert [one[name] for one in result["per_seed"]] == pytest.approx(each, rel=1e-9)
        assert result[name] == pytest.approx(np.mean(each), rel=1e-9)
        assert result[f"{name}_deviation"] == pytest.approx(np.std(each, ddof=1), rel=1e-6)
        assert all(one[f"{name}_deviation"] is None for one in alone), "of one network there is none"
    model = MLP.load(folder)
    assert (model.replicas, model.ensemble) == (3, False)
    loss, accuracy = evaluate(model, *PAIR)
    assert ([one["test_loss"] for one in result["per_seed"]], [one["test_accuracy"] for one in result["per_seed"]]) == (
        pytest.approx(loss),
        accuracy,
    )


def test_replicas_count_from_the_seed(run):
    """And the first one is the single run with it, whose batches it has."""
    replicas = result_of(run, *FLOAT64, "--replicas", 2, "--seed", 4)
    seeds = result_of(run, *FLOAT64, "--seeds", "4-5", "--seed", 4)
    single = result_of(run, *FLOAT64, "--seed", 4)
    assert replicas["per_seed"] == seeds["per_seed"]
    assert replicas["per_seed"][0]["test_loss"] == pytest.approx(single["test_loss"], rel=1e-9)
    assert "per_seed" not in single


def test_one_line_for_people(run, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run(train, *SHORT, "--hidden", 20, "--replicas", 3, "--validation", 0.2, "--out", folder)
    assert (code, out.count("\n")) == (0, 1)
    result = json.loads((folder / "result.json").read_text())
    figures = [f"{rows}_{figure}" for rows in ("test", "validation", "train") for figure in ("accuracy", "loss")]
    said = [f"{name.replace('_', ' ')} {result[name]:.4f} ± {result[f'{name}_deviation']:.4f}" for name in figures]
    assert out.startswith(f"{', '.join(said)} (mean ± deviation, seeds 0 to 2) on digits, after 30 steps in ")
    assert out.endswith(f" s on cpu; the run is in {folder}\n")
    assert "training 3 networks, of which epochs show the mean, on cpu" in err
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["test_loss_deviation"] == result["test_loss_deviation"]
    code, out, _ = run(train, *SHORT, "--hidden", 20, "--seeds", 7, "--quiet")
    assert (code, "±" in out, " (seed 7) on digits" in out) == (0, False, True)


def test_each_network_has_a_best_epoch(run, tmp_path):
    how = (*DIGITS, "--hidden", 20, "--epochs", 8, "--early-stop", 2, "--lr", 0.03, "--quiet")
    code, out, _ = run(train, *how, "--replicas", 3, "--out", tmp_path / "run")
    assert (code, "on cpu, of each network's best epoch; the run is in" in out) == (0, True)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [one["best_epoch"] for one in result["per_seed"]] == result["best_epoch"]
    loss, accuracy = evaluate(MLP.load(tmp_path / "run"), *PAIR)
    assert [one["test_loss"] for one in result["per_seed"]] == pytest.approx(loss)
    assert result["test_accuracy"] == pytest.approx(np.mean(accuracy))


def test_networks_that_diverged_are_left_out(run, tmp_path, monkeypatch):
    def build(*of_run):
        trainer, arguments = options.build_trainer(*of_run)
        trainer.model.network.layers[0].W[1] = np.inf
        return trainer, arguments

    monkeypatch.setattr(train, "build_trainer", build)
    code, out, err = run(train, *SHORT, "--replicas", 3, "--json", "--quiet")
    assert (code, err) == (0, "1 of 3 networks diverged, and are left out: seed 1\n")
    result = json.loads(out)
    each = [one["test_accuracy"] for one in result["per_seed"]]
    assert result["per_seed"][1]["train_loss"] is None
    assert result["test_accuracy"] == pytest.approx((each[0] + each[2]) / 2)
    assert result["test_accuracy_deviation"] == pytest.approx(np.std([each[0], each[2]], ddof=1))


def test_scores_of_each_network(run, tmp_path):
    pytest.importorskip("sklearn")
    folder = tmp_path / "run"
    code, _, err = run(train, *SHORT, "--hidden", 20, "--replicas", 2, "--metrics", "--quiet", "--out", folder)
    assert (code, err) == (0, "")
    result = json.loads((folder / "result.json").read_text())
    each = [one["test_f1"] for one in result["per_seed"]]
    assert (result["test_f1"], result["test_f1_deviation"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert json.loads((folder / "metrics.json").read_text())["test_f1"] == each
    for replica in (0, 1):
        np.savez(tmp_path / "x.npz", x=PAIR[0], y=PAIR[1])
        words = (folder, tmp_path / "x.npz", "--labels", tmp_path / "x.npz", "--metrics", tmp_path / "m.json")
        assert run(predict, *words, "--replica", replica)[0] == 0
        assert json.loads((tmp_path / "m.json").read_text())["f1"] == pytest.approx(each[replica])


def test_an_interrupted_run_goes_on(run, tmp_path):
    """The file of one that was made longer holds all that one of that length has."""
    how = (*DIGITS, "--hidden", 20, "--replicas", 3, "--dropout", 0.2, "--no-compile", "--quiet")
    assert run(train, *how, "--epochs", 4, "--out", tmp_path / "whole")[0] == 0
    assert run(train, *how, "--epochs", 2, "--out", tmp_path / "run")[0] == 0
    assert run(train, "--resume", tmp_path / "run", "--epochs", 4, "--quiet")[0] == 0
    whole, resumed = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "run"))
    assert resumed["per_seed"] == whole["per_seed"]
    assert resumed["epochs"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--replicas", 0), "replicas must be at least 1, not 0"),
        (("--replicas", 2, "--ensemble", 2), "ensemble and replicas cannot both be given"),
        (("--replicas", 2, "--seeds", "0-3"), "replicas and seeds cannot both be given"),
        (("--seeds", "0-3", 2), "seeds must differ from each other, and [0, 1, 2, 3, 2] do not"),
        (("--seeds", "3-1"), "seeds must rise, and be at most a million, and 3-1 do not"),
        (("--seeds", "x"), "seeds must be whole numbers, or from one to another such as 0-4, not 'x'"),
        (("--seeds", 2**64), f"each number in seeds must be at most {2**64 - 1}"),
        (("--replicas", 2, "--calibrate", "--validation", 0.2), "calibrate takes one model, or an ensemble"),
    ],
)
def test_options_that_are_refused(words, said, run, tmp_path):
    code, out, err = run(train, *SHORT, *words, "--quiet", "--out", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_given_option_overrides_its_alternatives_in_a_file(run, tmp_path):
    (tmp_path / "o.toml").write_text("seeds = [4, 5]\n")
    how = (*SHORT, "--hidden", 9, "--quiet", "--json", "--config", tmp_path / "o.toml")
    assert [one["seed"] for one in result_of(run, *how)["per_seed"]] == [4, 5]
    assert [one["seed"] for one in result_of(run, *how, "--replicas", 3)["per_seed"]] == [0, 1, 2]
    assert result_of(run, *how, "--ensemble", 2)["members"] == 2


def test_curves_have_a_band():
    plots = pytest.importorskip("xpnet.plots")
    bands = []
    rows = [{"epoch": e, "train_loss": [1 / e, 2 / e], "train_accuracy": [0.5, 0.7]} for e in (1, 2, 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_draw_band", lambda axes, x, mean, deviation, color: bands.append((mean, deviation)))
        plots.draw_curves([with_deviations(row) for row in rows])
        plots.draw_curves([{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5}])
    (losses, deviations), (accuracies, _) = bands
    assert losses == pytest.approx((1.5, 0.75, 0.5))
    assert deviations == pytest.approx([math.sqrt(0.5) / e for e in (1, 2, 3)])
    assert accuracies == pytest.approx((0.6, 0.6, 0.6))


def test_means_without_networks_that_diverged():
    found = with_deviations({"epoch": 3, "train_loss": [1.0, math.nan, 3.0], "train_accuracy": [0.5, 0.0, 0.7]})
    assert found == pytest.approx(
        {
            "epoch": 3,
            "train_loss": 2.0,
            "train_loss_deviation": math.sqrt(2.0),
            "train_accuracy": 0.6,
            "train_accuracy_deviation": math.sqrt(0.02),
        }
    )
    lost = with_deviations({"train_loss": [math.nan, math.inf]})
    assert all(map(math.isnan, lost.values()))


def test_many_seeds_in_words():
    assert seeds_in_words([3]) == "seed 3"
    assert seeds_in_words(range(100)) == "seeds 0 to 99"
    assert seeds_in_words(range(0, 40, 2)) == "seeds 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
