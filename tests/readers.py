"""The readers of files, with valid files of each kind, for scripts/fuzz.py."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import test_fuzz_readers as files
from safetensors.numpy import load, save

from xpnet import MLP, DataError, ModelFileError, Trainer, XpnetError
from xpnet.data import load_npz, pictures
from xpnet.data.idx import read_idx
from xpnet.model.model_file import _digest, digest_of


@dataclass(frozen=True)
class Reader:
    """A reader of files, and what it promises.

    Attributes:
        functions: its functions, a pattern for each file in xpnet.
        name: of the file that it reads.
        read, error, times: as `survives` takes them.
        forms: for each form of input, valid ones, and a function that makes a file of one.
    """

    functions: dict[str, str]
    name: str
    read: Callable[[Path], object]
    error: Any
    times: int
    forms: list[tuple[list[bytes], Callable[[bytes], bytes]]]

    def check(self, folder, form, content):
        """Make a file, and read it; raise where a promise is broken."""
        files.survives(self.read, folder / self.name, self.forms[form][1](content), self.error, self.times)


def described(tensors, text):
    """A model file with this description; its digest is right if the text is JSON."""
    try:
        value = json.loads(text)
        text = json.dumps(value | {"sha256": _digest(value, tensors)}).encode()
    except (AttributeError, RecursionError, TypeError, ValueError):
        pass
    return save(tensors, metadata={"xpnet": text.decode(errors="replace")})


def counted(arrays, content):
    """A checkpoint with these numbers."""
    text = content.decode(errors="replace")
    return save(arrays, metadata={"checkpoint": text, "sha256": digest_of(text, arrays)})


def mended(make, key, content):
    """The file that `make` makes of the tensors and the text that are left in a damaged one."""
    with contextlib.suppress(Exception):
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return make(load(content), header["__metadata__"][key].encode())
    return content


def make_readers(folder):
    """Make the readers; valid files are written into a folder, which must be none that is read from."""
    found = {}
    idx, npy = ([make(array) for array in files.ARRAYS] for make in (files.idx_bytes, files.npy_of))
    forms = [(idx, bytes), (idx, gzip.compress)]
    found["idx"] = Reader({"data/idx.py": "_?read"}, "a", read_idx, DataError, 3 * 1032, forms)

    npz = [files.zipped({"x.npy": npy[0], "y.npy": npy[2]}, kind) for kind in (0, 8)]
    x, y = npy_pair = [files.npy_of(array) for array in ([[0.5, 1], [2, 3]], [0, 1])]
    words = files.npy_of(["a", "b"])
    npz += [files.zipped({"x.npy": x, "y.npy": labels}, 0) for labels in (y, words)]
    forms = [
        (npz, bytes),
        (npy + npy_pair, lambda content: files.zipped({"x.npy": content, "y.npy": y}, 0)),
        (
            [y],
            lambda content: files.zipped(
                {"x_train.npy": x, "y_train.npy": content, "x_test.npy": x, "y_test.npy": y}, 0
            ),
        ),
    ]
    functions = {"data/files.py": "read_npz|_array|open_regular", "data/tables.py": "."}
    found["npz"] = Reader(functions, "a", load_npz, DataError, 3 * 1032, forms)

    models = files.model_files(folder / "m")
    whole = [content for *_, content in models]
    forms = [(whole, bytes), (whole, partial(mended, described, "xpnet"))]
    forms += [([json.dumps(one).encode()], partial(described, tensors)) for one, tensors, _ in models]
    functions = {"model/model_file.py": ".", "model/mlp.py": "build_model|_by_name"}
    found["model"] = Reader(functions, "m", MLP.load, ModelFileError, 100, forms)

    states = files.checkpoint_files(folder / "c.safetensors")
    functions = {
        "training/checkpoint.py": "Checkpoint.read",
        "training/state_file.py": "read_state|_is_|_are_|_each|_holds|alike",
        "training/trainer.py": "Trainer.resume|_differing",
        "training/training.py": "Training.take",
        "training/fit.py": "Fit.load",
        "training/early_stopping.py": "EarlyStopping.load|BestCheckpoint.load",
    }
    for number, (kind, (numbers, arrays, content)) in enumerate(zip(files.KINDS, states, strict=True)):
        forms = [([content], bytes), ([content], partial(mended, counted, "checkpoint"))]
        forms += [([json.dumps(numbers).encode()], partial(counted, arrays))]
        read = partial(go_on, kind)
        found[f"checkpoint {number + 1}"] = Reader(functions, "c.safetensors", read, ValueError, 100, forms)

    numbers, arrays, content = states[1]
    functions = {
        "training/training.py": "Training.load|Training.take",
        "model/model_file.py": "tensors_in|build_network|_check_tensors|_made",
        "optim/mixed.py": "optimizer_of",
        "optim/schedules.py": "schedule_of",
    }
    forms = [([content], bytes), ([json.dumps(numbers).encode()], partial(counted, arrays))]
    found["trainer"] = Reader(functions, "t.safetensors", Trainer.load, XpnetError, 100, forms)

    functions = {"training/config.py": "read_options|check|_plain|Config.__post_init__", "data/files.py": "decode_text"}
    wrong = (TypeError, ValueError)
    forms = [([files.TOML, b"batch-size = 10\nhidden = [3]\n"], bytes)]
    found["toml"] = Reader(functions, "a.toml", files.read_config, wrong, 1000, forms)
    forms = [([json.dumps(files.RUN).encode()], bytes)]
    functions = functions | {"training/run_folder.py": "RunFolder.check_data|RunFolder.go_on"}
    found["config.json"] = Reader(functions, "config.json", files.read_run, wrong, 100, forms)

    forms = [([content for _, content in files.picture_files()], files.with_checksums)]
    times = 16 * 2**16 // 50  # 16 bytes a pixel, in files of 50 bytes and more
    found["picture"] = Reader({"data/pictures.py": "."}, "a", read_small, DataError, times, forms)
    return found


def go_on(kind, path):
    files.go_on(path, *kind)


def read_small(path):
    """Read a picture of few pixels, whose memory is in proportion to them."""
    most, pictures.MOST_PIXELS = pictures.MOST_PIXELS, 2**16
    try:
        return pictures.read_picture(path, (8, 8))
    finally:
        pictures.MOST_PIXELS = most
