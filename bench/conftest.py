"""What the benchmarks share: the device, and a record of what the numbers were measured on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from surroundings import noted, surroundings

from xpnet.commands.doctor import BLAS_VARIABLES, examine
from xpnet.core.device import CPU, Device, get_device, limit_threads
from xpnet.training.config import most_threads

BEFORE = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to time a BLAS that is held below what the processor has."""
    held = [name for name in BLAS_VARIABLES if name in os.environ]
    if held and not config.getoption("benchmark_disable", default=False):
        pytest.exit(f"unset {' '.join(held)} first: NumPy's products would be slower than this machine's", returncode=2)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note the surroundings before the first benchmark."""
    session.config.stash[BEFORE] = surroundings()


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Put the surroundings beside the numbers, with the conditions until now."""
    output_json["surroundings"] = noted(config.stash[BEFORE])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say below the table why the times are not to be relied on, where they are not."""
    timed = not config.getoption("benchmark_disable", default=False)
    if timed and BEFORE in config.stash:
        warning = noted(config.stash[BEFORE])["conditions"]["warning"]
        if warning:
            terminalreporter.write_line(warning, yellow=True)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Put the doctor's findings beside the numbers."""
    machine_info["xpnet"] = {finding.name: finding.found for finding in examine()}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each device of this machine; on the CPU with the threads that a run of a large network would use."""
    if request.param == "cuda":
        yield get_device("cuda")
    else:
        with limit_threads(most_threads()):
            yield CPU
