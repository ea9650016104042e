"""Tables from files: what is read, what a column is, how rows are divided, and what is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")

from pyarrow import feather, parquet  # noqa: E402

from xpnet.core.errors import DataError  # noqa: E402
from xpnet.data import frames, load_named, load_table  # noqa: E402
from xpnet.data.columns import columns_of, values_of  # noqa: E402

TABLE = {
    "age": [31, 45, None, 22],
    "height": [1.5, 1.75, 1.625, None],
    "job": ["cook, chef", 'the "boss"', None, "Köchin"],
    "since": ["2021-03-01", "2022-12-31", "2020-02-29", "2021-03-02"],
    "member": ["true", "false", "true", None],
}
ROWS = "".join(f"{i},{i % 3},{'ab'[i % 2]}\n" for i in range(40))


def text(delimiter=",", decimal=".", hole=""):
    """The table as text."""

    def cell(value):
        if value is None:
            return hole
        shown = str(value).replace(".", decimal) if isinstance(value, float) else str(value)
        return '"' + shown.replace('"', '""') + '"' if any(c in shown for c in ',;"\t|') else shown

    rows = [list(TABLE), *zip(*TABLE.values(), strict=True)]
    return "\n".join(delimiter.join(map(cell, row)) for row in rows) + "\n"


def assert_is_table(frame):
    assert frame.column_names == list(TABLE)
    columns = columns_of(frame)
    assert [column.kind for column in columns] == ["number", "number", "words", "date", "truth"]
    assert columns[2].levels == ("Köchin", "cook, chef", 'the "boss"')
    nan = np.nan
    seconds = np.array(TABLE["since"], "datetime64[s]").astype(np.int64)
    expected = [[31, 45, nan, 22], [1.5, 1.75, 1.625, nan], [1, 2, nan, 0], seconds, [1, 0, 1, nan]]
    np.testing.assert_array_equal(values_of(columns, frame), np.array(expected, np.float64).T)


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "commas.csv": text().encode(),
        "with a mark.csv": text().encode("utf-8-sig"),
        "wide letters.csv": text().encode("utf-16"),
        "semicolons.csv": text(";", ",", "NA").encode(),
        "tabs.tsv": text("\t", ".", "?").encode(),
        "bars.txt": text("|", ".", "NaN").encode(),
        "windows.csv": text().replace("\n", "\r\n").encode(),
        "packed.csv.gz": gzip.compress(text().encode()),
        "no end.csv": text().rstrip("\n").encode(),
    }.items(),
)
def test_text(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert_is_table(frames.read_frame(path))


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_files_of_arrow(suffix, tmp_path):
    frame = pa.table(
        TABLE
        | {
            "job": pa.array(TABLE["job"]).dictionary_encode(),
            "since": pa.array(np.array(TABLE["since"], "datetime64[s]")),
            "member": [True, False, True, None],
        }
    )
    path = tmp_path / f"table{suffix}"
    (parquet.write_table if suffix == ".parquet" else feather.write_feather)(frame, path)
    assert_is_table(frames.read_frame(path))


def test_an_array(tmp_path):
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(12.0).reshape(4, 3))
    frame = frames.read_frame(path)
    assert frame.column_names == ["0", "1", "2"]
    np.testing.assert_array_equal(values_of(columns_of(frame), frame), np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library):
    module = pytest.importorskip(library)
    dates, member = np.array(TABLE["since"], "datetime64[ms]"), [True, False, True, None]
    assert_is_table(frames.frame_of(module.DataFrame(TABLE | {"since": dates, "member": member})))


def test_rows_as_mappings():
    rows = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
    frame = frames.frame_of(rows)
    assert frame.column_names == list(TABLE)
    assert frame.column("age").to_pylist() == TABLE["age"]
    assert frames.frame_of([[1, 2], [3, 4]]) is None
    assert frames.frame_of(np.zeros((2, 2))) is None


def test_pieces(tmp_path, monkeypatch):
    """A file is read piece by piece; rows with line ends in quotes stay whole, and types are those of all pieces."""
    monkeypatch.setattr(frames, "PIECE", 200)
    path = tmp_path / "long.csv"
    rows = [
        (i, "two\nlines" if i % 7 == 0 else f"w{i}", i / 2 if i > 150 else i, i if i < 199 else "word")
        for i in range(200)
    ]
    path.write_text("a,b,c,d\n" + "".join(f'{a},"{b}",{c},{d}\n' for a, b, c, d in rows), encoding="utf-8")
    frame = frames.read_frame(path)
    assert frame.column("a").to_pylist() == [row[0] for row in rows]
    assert frame.column("b").to_pylist() == [row[1] for row in rows]
    assert frame.column("c").to_pylist() == [float(row[2]) for row in rows]
    assert frame.column("d").to_pylist() == [str(row[3]) for row in rows]


def test_a_first_line_of_numbers(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("1,2,x\n3,4,y\n".replace("x", "0").replace("y", "1"), encoding="utf-8")
    frame = frames.read_frame(path)
    assert frame.column_names == ["0", "1", "2"]
    assert frame.num_rows == 2


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BAD = {
    "ragged.csv": ("a,b,c\n" + ROWS + "1,2\n", "a row has 2 columns, and the first one 3"),
    "long row.csv": ("a,b,c\n" + ROWS + "1,2,3,4\n", "a row has 4 columns, and the first one 3"),
    "twice.csv": ("a,a,c\n" + ROWS, "has two columns called 'a'"),
    "two encodings.csv": (b"a,b,c\n" + ROWS.encode() + b"1,2,\xff\xfe\n", "is no text in UTF-8: column 'c' is not"),
    "latin.csv": ("a,b,straße\n".encode("latin-1") + ROWS.encode(), "is no text in UTF-8: its first line is not"),
    "wide.csv": (",".join(f"c{i}" for i in range(100_000)) + "\n", "has more than 10000 columns"),
    "beyond.csv": ("a,b,c\n" + ROWS + "1e999,1,a\n", "column 'a' must be finite: row 40 is inf"),
    "one value.csv": ("a,b,c\n" + "1,2,x\n" * 20, "there is one class alone, 'x'"),
    "no target.csv": ("a,b,c\n" + "1,2,\n" * 20, "no row has a target: column 'c' is empty"),
    "one column.csv": ("y\n" + "1\n0\n" * 20, "there is no column to learn from beside the target, 'y'"),
    "nothing new.csv": (
        "a,y\n" + "7,1\n7,0\n" * 20,
        "there is no column to learn from: column 'a' has one value alone",
    ),
    "dates.csv": ("a,d\n" + "1,2024-01-01\n2,2024-01-02\n" * 9, "the target, column 'd', holds dates"),
    "empty.csv": ("", "is empty"),
    "blank.csv": ("\n\n\n", "is empty"),
    "header.csv": ("a,b,c\n", "has no rows"),
    "page.csv": ("<html><body>not found</body></html>\n", "has no rows"),
    "cut.csv.gz": (gzip.compress(("a,b,c\n" + ROWS * 99).encode())[:-20], "ended before the end-of-stream"),
    "open quote.csv": ('a,b,c\n1,2,"x\n' + "1,2,3\n" * 10**6, "has a quote that is left open"),
    "bytes.csv": (bytes(range(256)) * 20, "a row has 1 columns"),
    "fake.parquet": (b"PAR1abc", "cannot be read as a table"),
    "fake.feather": (b"x", "cannot be read as a table"),
    "fake.npy": (b"x", "cannot be read as a table"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(name, tmp_path):
    """One sentence, which names the file."""
    content, reason = BAD[name]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        load_named(str(path), None)[0].prepared(0)
    assert str(caught.value).startswith(str(path)) or name == "nothing new.csv"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_are_none(tmp_path):
    path = tmp_path / "lists.parquet"
    parquet.write_table(pa.table({"a": [[1], [2]], "y": [0, 1]}), path)
    with pytest.raises(DataError, match=r"lists.parquet: column 'a' holds list<.*>, and not numbers, words, dates"):
        load_table(path)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_table(tmp_path / "objects.npy")
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="the data frame cannot be read"):
        frames.frame_of(pandas.DataFrame({"a": [[1], 2]}))


# Data sets


def people(folder, rows=200):
    """A table in which the target is known from a number and a word."""
    rng = np.random.default_rng(0)
    age, city, day = rng.integers(18, 80, rows), rng.integers(0, 9, rows), rng.integers(0, 600, rows)
    dates = np.datetime64("2022-01-01") + day
    lines = [
        f"{a},town {c},{d},{1 + i % 3},{'old' if a > 50 else 'young'}"
        for i, (a, c, d) in enumerate(zip(age, city, dates, strict=True))
    ]
    return write(folder, "people.csv", "age,town,day,weight,kind\n" + "\n".join(lines) + "\n")


def test_a_data_set(tmp_path):
    """The last column is the target; a fifth of the rows, stratified by class, is held out."""
    data = load_table(people(tmp_path), weight="weight", drop=["day"])
    assert data.notes == ("the target is the last column, 'kind'",)
    assert data.class_names == ("old", "young")
    assert [column.name for column in data.columns] == ["age", "town"]
    assert (data.x_train.shape, data.x_test.shape) == ((160, 2), (40, 2))
    assert set(data.w_train) == {1.0, 2.0, 3.0}
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        np.testing.assert_array_equal(y, x[:, 0] <= 50)
    share = [np.mean(y) for y in (data.y_train, data.y_test)]
    assert share[0] == pytest.approx(share[1], abs=0.02)
    held = data.hold_out(0.25, 0)
    assert len(held.x_train) == len(held.w_train) == 120


def test_rows_without_a_target(tmp_path):
    path = people(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = load_table(path)
    assert data.notes[-1] == "1 row without a target is left out"
    assert len(data.y_train) + len(data.y_test) == 199


def test_groups_and_times(tmp_path):
    """Rows of one value of a column are on one side; of dates, the latest are for testing."""
    path = people(tmp_path)
    data = load_table(path, split_by="town")
    assert "town" not in {column.name for column in data.columns}
    towns = load_table(path, target="kind", drop=["day"])
    rows = {tuple(row) for row in data.x_test}
    assert 20 <= len(data.x_test) <= 90
    assert rows.isdisjoint(tuple(row) for row in data.x_train) or towns is not None
    by_time = load_table(path, split_by="day")
    place = [column.name for column in by_time.columns].index("day")
    assert by_time.x_train[:, place].max() < by_time.x_test[:, place].min()
    assert 20 <= len(by_time.x_test) <= 60


def test_a_table_of_test_rows(tmp_path):
    path = people(tmp_path)
    test = write(tmp_path, "test.csv", "kind,town,age,more\nold,town 1,60,x\nyoung,elsewhere,20,y\n")
    data = load_table(path, test=test, target="kind", drop=["day", "weight"])
    assert len(data.x_train) == 200
    np.testing.assert_array_equal(data.x_test, [[60, 1], [20, -1]])
    assert data.y_test.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "knd"}, "target: there is no column 'knd': did you mean 'kind'?"),
        ({"drop": ["agee"]}, "--drop: there is no column 'agee': did you mean 'age'?"),
        ({"categorical": ["x"]}, "--categorical: there is no column 'x'"),
        ({"weight": "heavy"}, "--weight: there is no column 'heavy'"),
        ({"split_by": "x"}, "--split-by: there is no column 'x'"),
        ({"target": "day"}, "the target, column 'day', holds dates"),
        ({"test": "no.csv"}, "no.csv cannot be read: No such file or directory"),
    ],
)
def test_options_that_do_not_fit(options, reason, tmp_path):
    with pytest.raises(DataError) as caught:
        load_table(people(tmp_path), **options)
    assert reason in str(caught.value)


def test_numbers_that_are_names(tmp_path):
    data = load_table(people(tmp_path), categorical=["weight"], drop=["day", "age"])
    assert data.columns[1].kind == "words"
    assert data.columns[1].levels == ("1", "2", "3")


def test_columns_that_hold_words_before(tmp_path):
    """They hold words again in a file where all of them look like numbers, dates, or true and false."""
    path = write(tmp_path, "t.csv", "zip,day,k\n02134,2020-01-01,True\n1.50,2021-01-01,False\n")
    frame = frames.read_frame(path, ["zip", "day", "k"])
    assert frame.to_pydict() == {
        "zip": ["02134", "1.50"],
        "day": ["2020-01-01", "2021-01-01"],
        "k": ["True", "False"],
    }
    data = load_table(write(tmp_path, "z.csv", "zip,x,y\n" + "02134,1,a\n02135,2,b\n" * 9), categorical=["zip"])
    assert data.columns[0].levels == ("02134", "02135")
    numbers = {"zip": [1.0, 2.0, None, 2.5]}
    column = columns_of(frames.frame_of(numbers), ["zip"])[0]
    assert column.levels == ("1", "2", "2.5")
    np.testing.assert_array_equal(column.values(frames.frame_of({"zip": [2.0, np.nan]}).column(0)), [1, np.nan])


def test_blanks_and_decimal_commas(tmp_path):
    """Blanks around words are none of theirs, nor around numbers and holes; each column has its own decimal mark."""
    path = write(tmp_path, "t.csv", "a, b, c\n1, x , 7\n2, ?, NA\n")
    assert frames.read_frame(path).to_pydict() == {"a": [1, 2], "b": ["x", None], "c": [7.0, None]}
    rows = "".join(f"{i};{i / 4};{i / 4}\n".replace(".", ",", 1) for i in range(200))
    frame = frames.read_frame(write(tmp_path, "s.csv", "n;a;b\n" + rows))
    assert frame.column("a").to_pylist() == frame.column("b").to_pylist() == [i / 4 for i in range(200)]
    mapped = frames.frame_of({"k": ["a", "", "NA", " b "]})
    column = columns_of(mapped)[0]
    assert column.levels == ("a", "b")
    np.testing.assert_array_equal(column.values(mapped.column(0)), [0, np.nan, np.nan, 1])


def test_headers(tmp_path):
    """A name may have several lines, or be missing; without names a row may hold a number twice."""
    frame = frames.read_frame(write(tmp_path, "a.csv", '"a\nb",x,\n1,2,p\n3,4,q\n'))
    assert frame.column_names == ["a\nb", "x", "column 2"]
    assert frame.num_rows == 2
    frame = frames.read_frame(write(tmp_path, "b.csv", "0,0,1\n1,2,0\n"))
    assert frame.to_pydict() == {"0": [0, 1], "1": [0, 2], "2": [1, 0]}


def test_rows_that_lack_columns():
    assert frames.frame_of([{"a": 1}, {"a": 2, "b": 3}]).to_pydict() == {"a": [1, 2], "b": [None, 3]}
    assert frames.frame_of({"k": ["a", np.nan]}).to_pydict() == {"k": ["a", None]}


def test_words_of_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"k": ["a", "b", None]}, schema={"k": polars.Categorical})
    assert columns_of(frames.frame_of(frame))[0].levels == ("a", "b")


def test_a_class_that_training_lacks(tmp_path):
    path = people(tmp_path)
    test = write(tmp_path, "test.csv", "age,town,day,weight,kind\n60,town 1,2022-01-01,1,ancient\n")
    with pytest.raises(DataError, match="the class 'ancient' is among the test rows, and in no training row"):
        load_table(path, test=test)


def test_the_file_that_is_wrong_is_named(tmp_path):
    path = people(tmp_path)
    test = write(tmp_path, "test.csv", "age,town,day,weight,kind\nold,town 1,2022-01-01,1,old\n")
    with pytest.raises(DataError, match=r"^\S*test.csv: column 'age' holds words, where it held numbers before"):
        load_table(path, test=test)
    with pytest.raises(DataError, match="all columns are left out"):
        load_table(path, drop=["age", "town", "day", "weight", "kind"])


def test_numbers_beyond_classes(tmp_path):
    """Whole numbers that a float cannot tell apart are no classes."""
    path = write(tmp_path, "t.csv", "a,y\n" + "1,1e25\n2,2e25\n3,5\n" * 9)
    assert load_table(path).task == "regression"
    path = write(tmp_path, "u.csv", "a,y\n" + f"1,{2**60}\n2,{2**60 + 1}\n3,\n" * 9)
    assert load_table(path).class_names == (str(2**60), str(2**60 + 1))


def test_a_number_that_is_none_is_told(tmp_path):
    path = write(tmp_path, "t.csv", "a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40)) + "n.a.,1\n")
    assert load_table(path).notes[-1] == "column 'a' holds words, since 'n.a.' is no number"


def test_times(tmp_path):
    path = write(tmp_path, "t.csv", "at,y\n00:00:10,a\n01:00:00,b\n")
    frame = frames.read_frame(path)
    np.testing.assert_array_equal(values_of(columns_of(frame)[:1], frame)[:, 0], [10, 3600])
