"""MNIST and Fashion-MNIST: from a given folder, from the cache, or by a verified download.

Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul and R. Vollgraf,
"Fashion-MNIST", 2017. Both are 60,000 training and 10,000 test pictures of 28x28 bytes, as four IDX files.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..core.checks import path_of
from ..core.device import HostArray
from ..core.errors import DataError
from ..core.files import user_cache
from .dataset import Dataset
from .download import fetch
from .idx import ARRAYS, idx_files, idx_places, plain_name, read_idx

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FILES_OF = dict(zip(ARRAYS.values(), FILES, strict=True))
PROBE_SECONDS = 4  # for all mirrors together
ANSWERED = "answered"


@dataclass(frozen=True)
class Source:
    """A data set in MNIST's files, and its sources.

    Attributes:
        name: its name on the command line, and the name of its folder.
        title: its name in messages.
        hashes: hashes of the four gzipped files, in the order of `FILES`, equal on all mirrors.
        mirrors: folders on the web.
        class_names: names of the labels 0 to 9.
        installed: folder of a package of the operating system.
    """

    name: str
    title: str
    hashes: tuple[str, ...]
    mirrors: tuple[str, ...]
    class_names: tuple[str, ...]
    installed: Path | None = None


MNIST = Source(
    "mnist",
    "MNIST",
    (
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://sagemaker-sample-files.s3.amazonaws.com/datasets/image/MNIST/",
    ),
    tuple("0123456789"),
)
FASHION_MNIST = Source(
    "fashion-mnist",
    "Fashion-MNIST",
    # Its authors publish MD5 sums alone.
    (
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "md5:25c81989df183df01b3e8a0aad5dffbe",
        "md5:bef4ecab320f06d8554ea6380940ec79",
        "md5:bb300cfdad3c16e7a12a480ee83cd310",
    ),
    ("https://storage.googleapis.com/tensorflow/tf-keras-datasets/",),
    ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    installed=Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
)
SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}
"""Data sets of this kind by their names."""


class NotFound(DataError):
    """The data set is neither in the folders searched nor on a mirror; the message names them, with the reasons."""


def cache_folder() -> Path:
    """Folder of downloads; raises `NotFound` where there is no home folder."""
    try:
        return user_cache()
    except OSError as error:
        raise NotFound(f"there is no folder for downloads, since {error.strerror}") from error


def load_mnist(data_dir: Path | str | None = None, *, offline: bool = False, progress: bool = False) -> Dataset:
    """Load MNIST; see `load`."""
    return load(MNIST, data_dir, offline=offline, progress=progress)


def load_fashion_mnist(data_dir: Path | str | None = None, *, offline: bool = False, progress: bool = False) -> Dataset:
    """Load Fashion-MNIST; see `load`."""
    return load(FASHION_MNIST, data_dir, offline=offline, progress=progress)


def load(
    source: Source, data_dir: Path | str | None = None, *, offline: bool = False, progress: bool = False
) -> Dataset:
    """Load a data set in MNIST's files.

    Args:
        source: the data set.
        data_dir: search only `data_dir/NAME/` and `data_dir/`, and `raw` below either, for the four files, gzipped or
            not. None searches the cache and the folder of the operating system, then downloads into the cache.
        offline: do not download.
        progress: show a progress bar on stderr for each download.

    Raises:
        NotFound: the files are missing, and could not be downloaded.
        DataError: the files are damaged.
    """
    if data_dir is not None:
        return _read(source, find(source, path_of(data_dir)))
    cache = cache_folder() / source.name
    for folder in (cache, source.installed):
        try:
            if folder is not None:
                return _read(source, find(source, folder))
        except NotFound:
            continue
        except DataError:  # damaged files in the cache are downloaded again
            if offline:
                raise
    if offline:
        raise NotFound(f"there are no {source.title} files in {cache}")
    return _read(source, _download(source, cache, progress))


def find(source: Source, folder: Path) -> dict[str, Path]:
    """Find the file of each array, x_train to y_test, in `folder`; raise `NotFound` where one is missing.

    `idx_places` lists the folders to search, and `idx_files` knows the names.
    """
    for place in idx_places(folder, [source.name]):
        sets = idx_files(place)
        files = sets.get("") or sets.get(plain_name(source.name)) or {}
        if len(files) == len(FILES):
            return files
        if files:
            missing = next(name for array, name in FILES_OF.items() if array not in files)
            raise NotFound(f"{place} has no {missing}(.gz)")
    raise NotFound(f"there are no {source.title} files in {folder}")


def _download(source: Source, folder: Path, progress: bool) -> dict[str, Path]:
    """Fetch the four files from the first mirror that has each, checking their hashes; return their paths."""
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
    downloader = partial(fetch, progress=progress and sys.stderr.isatty())
    answers = _probe(source.mirrors)
    reasons = [f"{mirror.split('/')[2]}: {answer}" for mirror, answer in answers.items() if answer != ANSWERED]
    paths = {}
    for (array, name), known_hash in zip(FILES_OF.items(), source.hashes, strict=True):
        for mirror in (mirror for mirror, answer in answers.items() if answer == ANSWERED):
            try:
                # To a temporary file, then checked, then renamed.
                paths[array] = Path(
                    pooch.retrieve(
                        f"{mirror}{name}.gz", known_hash, fname=f"{name}.gz", path=folder, downloader=downloader
                    )
                )
                break
            except Exception as error:  # network, status, length or digest: try the next mirror
                reasons.append(f"{mirror.split('/')[2]}: {type(error).__name__}")
        else:
            raise NotFound(f"{source.title} is not in {folder}, and could not be downloaded ({'; '.join(reasons)})")
    return paths


def _probe(mirrors: tuple[str, ...]) -> dict[str, str]:
    """Probe all mirrors at once: for each, `ANSWERED`, or the reason why not.

    The time limit of a request holds for each address of a host, but not for its lookup: on a network that drops
    packets, mirrors in turn would take minutes. The threads of mirrors that never answer end with the process.
    """
    import requests

    answers = dict.fromkeys(mirrors, f"no answer in {PROBE_SECONDS} s")

    def ask(mirror: str) -> None:
        try:
            requests.head(f"{mirror}{FILES[0]}.gz", timeout=PROBE_SECONDS)
            answers[mirror] = ANSWERED
        except Exception as error:
            answers[mirror] = type(error).__name__

    threads = []
    for mirror in mirrors:
        thread = threading.Thread(target=ask, args=(mirror,), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # this user may have no more
            answers[mirror] = str(error)
        else:
            threads.append(thread)
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return dict(answers)


def _read(source: Source, paths: dict[str, Path]) -> Dataset:
    x_train, y_train, x_test, y_test = (read_idx(paths[array]) for array in FILES_OF)
    _check_pair(x_train, y_train, paths["x_train"], paths["y_train"])
    _check_pair(x_test, y_test, paths["x_test"], paths["y_test"])
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{paths['x_test']} has pictures of {x_test.shape[1:]}, and the training set of {x_train.shape[1:]}"
        )
    return Dataset(
        name=source.name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=source.class_names,
        input_scale=255.0,
        source=str(paths["x_train"].parent),
    )


def _check_pair(images: HostArray, labels: HostArray, images_path: Path, labels_path: Path) -> None:
    if images.ndim != 3 or images.dtype != np.uint8:
        raise DataError(f"{images_path} holds {images.dtype} of shape {images.shape}, not pictures of bytes")
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise DataError(f"{labels_path} holds {labels.dtype} of shape {labels.shape}, not one byte for each label")
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} pictures, and {labels_path} has {len(labels)} labels")
    if labels.max() > 9:
        raise DataError(f"{labels_path} has the label {labels.max()}, and they go from 0 to 9")
