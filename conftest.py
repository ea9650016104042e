"""Deselect tests and benchmarks that need a GPU where there is none, and refuse `-m cuda` there, or if all skip."""

from __future__ import annotations

import re

import pytest

from xpnet.core.device import get_device
from xpnet.core.errors import DeviceError

NOTES = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)  # after `-k` and `-m`: the device is asked for only if a selected test needs it
def pytest_collection_modifyitems(config, items):
    """Deselect what needs a GPU if there is none, or end with the reason if `-m` asks for it."""
    on_cuda = [item for item in items if item.get_closest_marker("cuda")]
    if not on_cuda:
        return
    try:
        get_device("cuda")
    except DeviceError as error:
        if re.search(r"\bcuda\b", config.option.markexpr):
            raise pytest.UsageError(f"-m {config.option.markexpr!r} needs a usable GPU: {error}") from None
        config.stash[NOTES] = f"deselected {len(on_cuda)} that need a GPU: {error}"
        config.hook.pytest_deselected(items=on_cuda)
        items[:] = [item for item in items if not item.get_closest_marker("cuda")]


def pytest_sessionfinish(session, exitstatus):
    """Let a run on the GPU in which every test was skipped end as one without tests: nothing was tested.

    Of several processes with -n, the one that reports counts.
    """
    if exitstatus == pytest.ExitCode.OK and session.config.option.markexpr == "cuda" and session.testscollected:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and len(reporter.stats.get("skipped", [])) == session.testscollected:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_report_collectionfinish(config):
    """Say below "collected ..." how many were deselected, and why."""
    return config.stash.get(NOTES, [])
