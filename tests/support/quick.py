"""A pytest plugin for `make quick`: it skips each test that starts a process, imports TensorFlow or opens MLflow's database.

No list and no marker says which tests are quick. Python's audit hooks tell the plugin what a test does, and the plugin skips
the test at that moment. A test file that imports TensorFlow at its top is skipped as a whole. A test with many sets of
parameters runs with `MOST_SETS` of them, and a test of the real X-rays does not run.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

HEAVY = {"tensorflow", "keras", "keras_tuner"}
"""Libraries that take seconds to import. The last two import the first."""

STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
}
"""Audit events of a process that starts."""

MOST_SETS = 3
"""Largest number of sets of parameters with which a test runs: the first, the last, and some between them."""

_watching = False


def _skip(reason: str) -> None:
    raise pytest.skip.Exception(reason, allow_module_level=True)


def _audit(event: str, arguments: Sequence[Any]) -> None:
    if not _watching:
        return
    if event in STARTS:
        _skip("not quick: starts a process")
    if event == "import" and arguments[0].partition(".")[0] in HEAVY:
        _skip("not quick: imports TensorFlow")
    if event == "sqlite3.connect" and str(arguments[0]).endswith("mlflow.db"):
        _skip("not quick: opens MLflow's database")  # which takes a second to create


def pytest_configure() -> None:
    """Install the hooks."""
    sys.addaudithook(_audit)
    # multiprocessing starts its processes without an audit event, so it gets one here.
    spawn = multiprocessing.util.spawnv_passfds

    def audited_spawn(*arguments: Any) -> int:
        sys.audit("os.posix_spawn")
        return spawn(*arguments)

    multiprocessing.util.spawnv_passfds = audited_spawn  # type: ignore[assignment]


@contextmanager
def _watch() -> Iterator[None]:
    global _watching  # noqa: PLW0603
    _watching = True
    try:
        yield
    finally:
        _watching = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select `MOST_SETS` sets of parameters of each test that does not read the real X-rays."""
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if "archive" not in getattr(item, "fixturenames", ()):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    selected: list[pytest.Item] = []
    for sets in tests.values():
        steps = min(MOST_SETS, len(sets)) - 1
        selected += [sets[step * (len(sets) - 1) // max(steps, 1)] for step in range(steps + 1)]
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, object, object]:
    """Watch while test files are imported."""
    with _watch():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Watch while a test and its fixtures run."""
    with _watch():
        return (yield)
