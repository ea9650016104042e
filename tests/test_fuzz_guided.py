"""scripts/fuzz.py in short: each reader, and whether coverage guides it."""

from __future__ import annotations

import random
import runpy
from itertools import takewhile
from pathlib import Path

import pytest
from readers import make_readers

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "fuzz.py"))


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    pytest.importorskip("PIL.Image")
    return make_readers(tmp_path_factory.mktemp("valid"))


CHECKPOINTS = [f"checkpoint {number}" for number in (1, 2, 3)]
NAMES = ["idx", "npz", "model", *CHECKPOINTS, "trainer", "toml", "config.json", "picture"]


@pytest.mark.parametrize("name", NAMES)
def test_readers(name, readers, tmp_path):
    found, kept = SCRIPT["fuzz"](readers[name], tmp_path, random.Random(0), range(200))
    assert found["faults"] == {}
    assert len(kept) > found["valid"]
    assert readers.keys() == set(NAMES)


class Steps:
    """A reader that fails where six bytes are right, each one of 32; with `guides`, each that is right is an arc."""

    forms = [([b"......"], bytes)]  # noqa: RUF012

    def __init__(self, guides):
        self.guides = guides

    def check(self, folder, form, content):
        right = len(list(takewhile(lambda byte: 130 <= byte < 162, content)))
        if self.guides:
            if right > 0:
                right = right
            if right > 1:
                right = right
            if right > 2:
                right = right
            if right > 3:
                right = right
            if right > 4:
                right = right
        if right > 5:
            raise RuntimeError


@pytest.mark.parametrize("guides", [True, False])
def test_coverage_guides(guides, tmp_path):
    found, _ = SCRIPT["fuzz"](Steps(guides), tmp_path, random.Random(0), range(10_000))
    assert len(found["faults"]) == guides
