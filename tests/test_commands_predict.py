"""`predict`: inputs, reports, pictures, and what it refuses."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec

import numpy as np
import pytest
from command_line import SHORT
from data_files import idx_bytes
from limits import limited

from xpnet import MLP, load_digits
from xpnet.commands import predict, train

pytestmark = pytest.mark.usefixtures("no_downloads")


def test_predicting_idx_npz_and_folders(run, trained, tmp_path):
    digits = load_digits()
    images, labels, arrays = tmp_path / "images.gz", tmp_path / "labels", tmp_path / "arrays.npz"
    images.write_bytes(gzip.compress(idx_bytes(digits.x_test)))
    labels.write_bytes(idx_bytes(digits.y_test))
    np.savez(arrays, x_train=digits.x_train, x_test=digits.x_test, y_test=digits.y_test)
    model = MLP.load(trained / "model.safetensors")
    expected = model.predict(digits.x_test)
    right = (expected.argmax(-1) == digits.y_test).mean()
    outputs = set()
    for source, truth in ((images, labels), (arrays, arrays)):
        for path in (trained, trained / "model.safetensors"):
            code, out, err = run(predict, path, source, "--labels", truth)
            assert code == 0, err
            assert err.splitlines()[0] == f"accuracy {right:.4f} ({round(right * 360)} of 360)"
            assert len(err.splitlines()) == 14
            outputs.add(out)
    (out,) = outputs
    for index, line in enumerate(out.splitlines()):
        fields = line.split("\t")
        assert fields[:2] == [str(index), str(expected[index].argmax())]
        assert float(fields[2]) == pytest.approx(expected[index].max(), abs=1e-6)
    code, out, _ = run(predict, trained, images, images, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["index"] for answer in answers] == list(range(720))
    np.testing.assert_allclose([answer["probabilities"] for answer in answers[:360]], expected, atol=1e-6)


def test_confusion_matrix_by_hand(run, tmp_path):
    """A model that always says "b" of a, b: two rows of a, one of b."""
    model = MLP([1, 2], init="zeros", class_names=["a", "b"])
    model.network.layers[0].b = [[0.0, 1.0]]
    model.save(tmp_path / "m")
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 1)), y=np.array([0, 0, 1]))
    code, _, err = run(predict, tmp_path / "m", tmp_path / "data.npz", "--labels", tmp_path / "data.npz")
    assert code == 0
    assert err.startswith("the labels are numbers: they are taken for the places of the classes, of which 0 is a\n")
    assert [line.split() for line in err.splitlines()[1:]] == [
        ["accuracy", "0.3333", "(1", "of", "3)"],
        ["true", "\\", "predicted"],
        ["a", "b", "accuracy"],
        ["a", "0", "2", "0.0000"],
        ["b", "0", "1", "1.0000"],
    ]


def test_a_picture_of_mistakes(run, trained, tmp_path):
    digits = load_digits()
    np.savez(tmp_path / "d.npz", x=digits.x_test, y=digits.y_test)
    pytest.importorskip("matplotlib")
    path = tmp_path / "mistakes.png"
    code, _, err = run(predict, trained, tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--mistakes", path)
    assert code == 0, err
    assert path.read_bytes().startswith(b"\x89PNG")
    model = MLP.load(trained / "model.safetensors")
    perfect = model.predict(digits.x_test).argmax(axis=1)
    np.savez(tmp_path / "d.npz", x=digits.x_test, y=perfect)
    before = path.stat().st_size
    assert run(predict, trained, tmp_path / "d.npz", "--labels", tmp_path / "d.npz", "--mistakes", path)[0] == 0
    assert path.stat().st_size < before, "no mistakes, no pictures"
    code, _, err = run(predict, trained, tmp_path / "d.npz", "--mistakes", path)
    assert (code, "--mistakes needs --labels" in err) == (2, True)
    MLP([3, 2]).save(tmp_path / "m")
    np.savez(tmp_path / "t.npz", x=np.eye(3), y=[0, 1, 1])
    code, out, err = run(
        predict, tmp_path / "m", tmp_path / "t.npz", "--labels", tmp_path / "t.npz", "--mistakes", path
    )
    assert (code, out, "the model takes rows of shape (3,), and no grey pictures" in err) == (2, "", True)
    MLP([4, 2]).save(tmp_path / "m")
    np.savez(tmp_path / "t.npz", x=np.eye(4), y=[0, 1, 1, 1])
    code, out, err = run(
        predict, tmp_path / "m", tmp_path / "t.npz", "--labels", tmp_path / "t.npz", "--mistakes", path
    )
    assert (code, out, "mistakes are drawn of pictures, and the model takes rows of 4 numbers" in err) == (2, "", True)


def test_reports_by_hand(run, tmp_path):
    """Labels: of two, the first is given in rows 0 and 1 and true in 0; numbers: 1 and 2 for 1 and 4."""
    labels = MLP([2, 2], task="multilabel", init="zeros", class_names=["a", "b"])
    labels.network.layers[0].W = np.eye(2)
    labels.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, -1.0]]), y=[[1, 0], [0, 0], [0, 1]])
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--labels", tmp_path / "x.npz")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["0", "a"], ["1", "a"]]
    rows = [line.split() for line in err.splitlines()]
    assert rows[0][:2] == ["accuracy", "0.3333"]
    assert rows[1] == ["label", "accuracy", "precision", "recall", "rows"]
    assert rows[2] == ["a", "0.6667", "0.5000", "1.0000", "1"]
    assert rows[3] == ["b", "0.6667", "-", "0.0000", "1"]

    numbers = MLP([1, 1], task="regression", init="zeros")
    numbers.network.layers[0].W = [[1.0]]
    numbers.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.array([[1.0], [2.0]]), y=[1.0, 4.0])
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--labels", tmp_path / "x.npz")
    assert out.splitlines() == ["0\t1", "1\t2"]
    assert err.splitlines()[2].split() == ["0", "0.1111", "1.41421", "1"], "1 - 4 / 4.5; root of 4 / 2; 2 / 2"


def test_the_worst_mistakes_come_first():
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert predict.worst(np.array([1, 1, 1, 1]), p, p.argmax(axis=1)).tolist() == [1, 3, 0]


HOSTILE = ["\x1b[31mred", "a\tb\nc", "고양이", "$x^2$"]


def test_names_do_not_reach_the_terminal_raw(run, tmp_path, monkeypatch):
    """Escapes and line ends of class names, labels, paths and arrays are escaped; JSON holds them as they are."""
    monkeypatch.chdir(tmp_path)
    path = "\x1b[2J.npz"
    model = MLP([4, 4], class_names=HOSTILE, seed=None)
    model.network.layers[0].W = 9.0 * np.eye(4)
    model.save(path)
    np.savez("x.npz", x=np.eye(4), y=HOSTILE)
    code, out, err = run(predict, path, "x.npz", "--labels", "x.npz")
    assert code == 0
    assert [line.split("\t")[1] for line in out.splitlines()] == ["\\x1b[31mred", "a\\tb\\nc", "고양이", "$x^2$"]
    assert all(c.isprintable() or c in "\t\n" for c in out + err)
    for line in err.splitlines()[3:]:  # columns stand one under the other, wide letters too
        assert sum(1 + ("가" <= c <= "힣") for c in line) == len(err.splitlines()[2]) + 3
    answers = [json.loads(line)["label"] for line in run(predict, path, "x.npz", "--json")[1].splitlines()]
    assert answers == HOSTILE

    np.savez("labels.npz", y=[*HOSTILE[:3], "\x07none"])
    np.savez("named.npz", **{"a\x1b": np.zeros(3), "b\r": np.zeros(3)})
    for command in (
        (path, "x.npz", "--labels", "labels.npz"),
        (path, "named.npz"),
        (path, "no\x1b.npz"),
        ("no\x1b", "x.npz"),
        (path, "x.npz", "--device", "\x1b"),
        (path, "x.npz", "--\x1b"),
    ):
        code, out, err = run(predict, *command)
        assert (code, out) == (2, "")
        assert err[:-1].isprintable(), err
    run(train, "--dataset", "x.npz", "--out", "run\x1b", "--steps", "3", "--hidden", "2")
    code, out, err = run(train, "--dataset", "x.npz", "--out", "run\x1b", "--steps", "3", "--hidden", "2")
    assert (code, err) == (2, "error: run\\x1b already holds a run; choose another folder, or give --overwrite\n")
    code, out, err = run(train, *SHORT, "--out", "more\x1b")
    assert (code, "the run is in more\\x1b" in out) == (0, True)


def test_pictures(run, trained, tmp_path):
    """A digit of the test set as a picture: light on dark as it is, dark on light, in colour, large, transparent."""
    image = pytest.importorskip("PIL.Image")
    digits = load_digits()
    model = MLP.load(trained / "model.safetensors")
    index = int(np.argmax(model.predict(digits.x_test).max(axis=-1)))
    label = str(digits.y_test[index])
    grey = np.pad(np.round(digits.x_test[index] * (255 / 16)).astype(np.uint8), 0)
    light = image.fromarray(grey)
    clear = image.fromarray(np.stack([grey * 0, grey * 0, grey * 0, grey], axis=-1))  # black ink on nothing
    for name, picture, inverted in (
        ("same.png", light, False),
        ("paper.png", image.fromarray(255 - grey), True),
        ("large.png", light.resize((320, 320), image.Resampling.NEAREST), False),
        ("colour.bmp", image.fromarray(255 - grey).convert("RGB"), True),
        ("clear.png", clear, True),
    ):
        picture.save(tmp_path / name)
        code, out, err = run(predict, trained, tmp_path / name)
        assert (code, out.split("\t")[1], err) == (0, label, "") or name == "large.png", name
        code, out, err = run(predict, trained, tmp_path / name, "--prepare", "plain")
        assert code == 0, err
        assert out.split("\t")[1] == label, name
        assert ("was inverted" in err) is inverted, name
    exact = json.loads(run(predict, trained, tmp_path / "same.png", "--json")[1])["probabilities"]
    np.testing.assert_allclose(exact, model.predict(digits.x_test[index : index + 1])[0], atol=0.02)
    _, forced, err = run(predict, trained, tmp_path / "same.png", "--invert")
    _, left, none = run(predict, trained, tmp_path / "paper.png", "--no-invert")
    assert forced == left
    assert err == none == ""


def test_what_cannot_be_predicted(run, trained, tmp_path):
    files = {
        "html.png": b"<html>",
        "empty": b"",
        "text.idx": b"\0\0\x08\1\0\0\0\5abcd",
        "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "wide": idx_bytes(np.zeros((3, 9), np.uint8)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "names.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "nan.npz", x=np.full((2, 64), np.nan))
    no_picture = "is no picture" if find_spec("PIL") else "reading pictures needs Pillow: pip install 'xpnet[plot]'"
    for name, words in {
        "html.png": no_picture,
        "empty": "is empty",
        "text.idx": "cut off",
        "cut.png": no_picture,
        "wide": "9 features in a row, and 64 are wanted",
        "names.npz": "has the arrays a, b, and none called x or x_test",
        "nan.npz": "row 0, column 0 is nan",
        "none": "No such file",
    }.items():
        code, out, err = run(predict, trained, tmp_path / name)
        assert (code, out) == (2, ""), name
        assert name in err
        assert words in err
        assert err.count("\n") == 1
    (tmp_path / "labels").write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    (tmp_path / "large").write_bytes(idx_bytes(np.full(1, 10, np.uint8)))
    (tmp_path / "one").write_bytes(idx_bytes(np.zeros((1, 64), np.uint8)))
    for name, words in {
        "labels": "and there are 1 rows",
        "large": "has the label 10 in row 0, which is none of 0",
    }.items():
        code, _, err = run(predict, trained, tmp_path / "one", "--labels", tmp_path / name)
        assert code == 2
        assert words in err
    for model in (tmp_path, tmp_path / "none", tmp_path / "one"):
        code, _, err = run(predict, model, tmp_path / "one")
        assert code == 2
        assert str(model) in err


def test_a_model_that_had_diverged_says_so(run, tmp_path):
    model = MLP([3, 2])
    model.network.values = np.nan
    model.save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    code, out, err = run(predict, tmp_path / "m", tmp_path / "x.npz", "--json")
    assert code == 0
    assert err.startswith(f"{tmp_path / 'm'}: predictions of 3 of 3 rows are not finite, and count as none")
    assert json.loads(out.splitlines()[0])["probabilities"] == [None, None]


def test_a_class_name_does_not_break_a_line(run, tmp_path):
    MLP([3, 2], class_names=["a\tb", "c\nd"]).save(tmp_path / "m")
    np.savez(tmp_path / "x.npz", x=np.eye(3))
    out = run(predict, tmp_path / "m", tmp_path / "x.npz")[1]
    assert [len(line.split("\t")) for line in out.splitlines()] == [3, 3, 3]


def test_no_rows_give_no_lines(run, trained, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((0, 64)))
    assert run(predict, trained, tmp_path / "x.npz") == (0, "", "")


@pytest.mark.parametrize(
    ("task", "y"),
    [("classification", np.zeros(3, np.float16)), ("regression", np.array([[0.0], [0.0], [1e200]]))],
    ids=["labels of float16", "targets whose squares are infinite"],
)
def test_targets_of_any_type_and_size_give_no_warning(run, tmp_path, task, y):
    MLP([2, 3 if task == "classification" else 1], task=task).save(tmp_path / "m")
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), y=y)
    assert run(predict, tmp_path / "m", tmp_path / "a.npz", "--labels", tmp_path / "a.npz")[0] == 0


def test_a_confusion_matrix_of_many_classes(run, tmp_path):
    """A file of 1 MB can have 100,000, whose matrix has 80 GB."""
    MLP([1, 20_000], init="zeros").save(tmp_path / "m")
    np.savez(tmp_path / "a.npz", x=np.ones((3, 1)), y=np.array([0, 0, 19_999]))
    with limited(memory=2**31):
        code, _, err = run(predict, tmp_path / "m", tmp_path / "a.npz", "--labels", tmp_path / "a.npz")
    assert code == 0
    assert err.splitlines()[0] == "accuracy 0.6667 (2 of 3)"
    assert err.endswith("no confusion matrix is shown of more than 1000 classes, and there are 20000\n")
