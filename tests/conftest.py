"""What tests share: the real archive, a folder of one's own, and an environment that reaches nothing of the user's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.support.mlflow_server",
    "tests.support.postgres",
    "tests.support.engine_studies",
    "tests.support.outboxes",
    "tests.support.served",
]

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

# Before anything imports TensorFlow, which reads it once; worker processes inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Who runs the tests in the background may have Ctrl-C ignored, which every program that they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def archive() -> Path:
    """The public archive of real X-rays, as a zip."""
    path = ROOT.parent / "shared" / "data" / "chest-xray-pneumonia.zip"
    if not path.is_file():
        pytest.skip(f"the archive of real X-rays is not at {path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No tracking server and no cache of the user's; one cache for the whole session, so pictures are decoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        patch.delenv("PNEUMO_STORAGE", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("PNEUMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one: `mlflow.db` and `mlruns/` land there, as in a user's project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
