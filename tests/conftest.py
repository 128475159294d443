"""Fixtures of all tests: the real archive, an empty folder, an environment without the user's servers and caches."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.in_process",
    "tests.support.browser",
    "tests.support.places",
    "tests.support.mlflow_server",
    "tests.support.postgres",
    "tests.support.engine_studies",
    "tests.support.engine_contract",
    "tests.support.outboxes",
    "tests.support.served",
]

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

ARCHIVE = "PNEUMO_TEST_ARCHIVE"
"""The environment variable with the path of the real archive; the default is `DEFAULT_ARCHIVE`."""

DEFAULT_ARCHIVE = ROOT.parent / "shared" / "data" / "chest-xray-pneumonia.zip"

LONGEST = (
    "engines/test_contract.py",
    "search/test_drills.py",
    "search/test_drills_server.py",
    "search/test_drills_trials.py",
    "search/test_drills_disk.py",
    "search/test_whole_way.py",
    "search/test_article.py",
    "replay/test_replay.py",
    "search/test_search.py",
    "search/test_engines.py",
    "search/test_odd_places.py",
    "search/test_search_ends.py",
    "promote/test_promote.py",
    "engines/test_repeats.py",
    "tracking/test_outbox_kills.py",
    "search/test_terminal.py",
    "search/test_folder_life.py",
    "search/test_integrity.py",
    "search/test_shared.py",
    "tracking/test_pages.py",
    "search/test_ray_cluster.py",
    "search/test_ray.py",
    "training/test_trial_resume.py",
    "compute/test_places.py",
    "project/test_wheel.py",
    "console/test_interruption.py",
    "search/test_stack.py",
    "search/test_lost_workers.py",
    "search/test_loop.py",
    "tracking/test_location.py",
    "promote/test_promoted_ensemble.py",
    "promote/test_no_comparison.py",
    "cnn/test_export.py",
    "cnn/test_checkpoint.py",
    "tracking/test_served.py",
    "tracking/test_model.py",
)
"""The test files that take longest, in `make test` or in `make test-slow`. Both start with them."""

# TensorFlow reads this when it is imported. Worker processes inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A busy machine is no failure. Hypothesis would fail an example that takes more than 0.2 seconds.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# A shell starts background jobs with Ctrl-C ignored, and the programs that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def archive() -> Path:
    """Return the path of the public archive of real X-rays, a zip. The test is skipped if there is none."""
    path = Path(os.environ.get(ARCHIVE) or DEFAULT_ARCHIVE).expanduser().absolute()
    if not path.is_file():
        pytest.skip(f"the archive of real X-rays is not at {path}; set {ARCHIVE} to its path")
    return path


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the user's MLflow server, databases and cache. One cache for the session, so that pictures are decoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        patch.delenv("PNEUMO_STORAGE", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes that no test needs
        patch.setenv("PNEUMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, the current one: `mlflow.db` and `mlruns/` are written there, as in a user's project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, then the files with most tests, so that both processes end at about the same time."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path, len(places)), -tests[item.path], item.path))
