"""Commands on tables: train, predict, search, and what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_data_frames import people

from xpnet.commands import predict, search, train
from xpnet.training.config import read_options

pytest.importorskip("pyarrow")
SHORT = ("--hidden", "20", "--epochs", "150", "--quiet", "--json")


@pytest.fixture
def trained(run, tmp_path):
    """A run on a table: its folder and its result."""
    code, out, err = run(train, "--dataset", people(tmp_path), *SHORT, "--out", tmp_path / "run", "--drop", "weight")
    assert (code, err) == (0, "")
    return tmp_path / "run", json.loads(out)


def test_a_table_is_trained_on_and_predicted(trained, run, tmp_path):
    """From the raw file, twice: the model file has the preparation."""
    folder, result = trained
    assert result["task"] == "classification"
    assert result["test_accuracy"] > 0.85
    assert read_options(folder / "config.json")["drop"] == ["weight"] or read_options(folder / "config.json")[
        "drop"
    ] == ("weight",)
    table = tmp_path / "people.csv"
    code, out, err = run(predict, folder, table, "--labels", table)
    assert code == 0
    assert len(out.splitlines()) == 200
    assert out.splitlines()[0].split("\t")[1] in ("old", "young")
    accuracy = float(err.partition("accuracy ")[2].split()[0])
    assert accuracy > 0.85
    few = tmp_path / "few.csv"
    few.write_text("town,age,day\ntown 1,70,2022-01-01\nnowhere,,2023-01-01\n", encoding="utf-8")
    code, out, err = run(predict, folder, few)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("0\told\t")


@pytest.mark.parametrize("several", [(), ("--ensemble", 2)])
def test_scores_and_calibration_of_rows_held_out(several, run, tmp_path):
    """They are read from features, not from a frame; the scores are those that `predict` has of a table."""
    words = ("--validation", 0.2, "--calibrate", "--metrics", *several)
    code, out, err = run(train, "--dataset", people(tmp_path), *SHORT, *words, "--out", tmp_path / "run")
    assert code == 0, err
    result = json.loads(out)
    assert result["temperature"] > 0.0
    pytest.importorskip("sklearn")
    assert result["test_log_loss"] == pytest.approx(result["test_loss"], rel=1e-4)


def test_what_is_said(run, tmp_path):
    code, _, err = run(train, "--dataset", people(tmp_path), "--hidden", "5", "--steps", "3")
    assert code == 0
    first = err.splitlines()[0]
    assert "160 x " in first
    assert "features made of 4 columns; classification, 2 classes; the target is the last column, 'kind'" in first


def test_the_same_run_again(trained, run, tmp_path):
    folder, result = trained
    code, out, _ = run(train, "--config", folder / "config.json", "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["test_loss"] == result["test_loss"]
    code, out, _ = run(train, "--resume", folder, "--epochs", "155", "--quiet", "--json")
    assert json.loads(out)["epochs"] == 155


def test_a_search_on_a_table(run, tmp_path):
    words = ("--lr", "1e-3", "1e-2", "--epochs", "5", "--hidden", "10", "--quiet", "--json")
    code, out, _ = run(search, "--dataset", people(tmp_path), *words, "--out", tmp_path / "search")
    assert code == 0
    assert len(json.loads(out)["trials"]) == 2
    code, out, _ = run(predict, tmp_path / "search" / "best.safetensors", tmp_path / "people.csv")
    assert (code, len(out.splitlines())) == (0, 200)


def test_numbers_of_a_table_for_other_models(run, tmp_path):
    """A model of arrays takes a table of as many numbers."""
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(50, 3)), y=np.arange(50) % 2)
    assert run(train, "--dataset", tmp_path / "data.npz", *SHORT, "--out", tmp_path / "run")[0] == 0
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n", encoding="utf-8")
    assert run(predict, tmp_path / "run", tmp_path / "rows.csv")[0] == 0
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    code, _, err = run(predict, tmp_path / "run", tmp_path / "rows.csv")
    assert code == 2
    assert "x has 2 features in a row, and 3 are wanted" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--target", "x"), "target: there is no column 'x'"),
        (("--weight", "town"), "--weight: column 'town' holds words"),
        (("--split-by", "nothing"), "--split-by: there is no column 'nothing'"),
        (("--test", "none.csv"), "none.csv cannot be read: No such file or directory"),
        (("--target", "age", "--task", "multilabel"), "several labels at once must be rows of 0 and 1"),
    ],
)
def test_one_sentence(words, reason, run, tmp_path):
    code, out, err = run(train, "--dataset", people(tmp_path), *words)
    assert (code, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1


def test_options_of_tables_alone(run):
    code, _, err = run(train, "--dataset", "digits", "--target", "x")
    assert code == 2
    assert "target goes with a table, such as FILE.csv, and dataset is digits" in err
