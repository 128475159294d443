"""A search whose training pictures leak into the sealed test set."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support.in_process import RunHere
from tests.support.pictures import archive_files, write_zip
from tests.support.program import client, command, runs, search, write

TRAIN, TEST = "train/NORMAL/IM-0001-0001.jpeg", "test/NORMAL/IM-9009-0001.jpeg"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write(tmp_path, data={"source": "kaggle", "validation": 0.3}, search={"trials": 1})


def test_a_study_on_leaking_pictures_is_refused_unless_the_experiment_says_why(
    tmp_path: Path, experiment: Path, run_here: RunHere
) -> None:
    files = archive_files(6, 2)
    path = write_zip(tmp_path / "planted.zip", files | {TEST: files[TRAIN]})
    refused = run_here("search", experiment, "--data", path, folder=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert TRAIN in line
    assert TEST in line
    assert "allow_leaks" in line
    assert "python -m pneumo.data audit" in line
    assert sorted(child.name for child in tmp_path.iterdir()) == ["experiment.yaml", "planted.zip"]

    reason = "the copies are of the calibration phantom"
    allowed = search(experiment, "--data", path, "--set", f"data.allow_leaks={reason}", folder=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    parent, _ = runs(tmp_path, "small")
    assert parent.data.tags["pneumo.allow_leaks"] == reason
    assert reason in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["pneumo.audit"].startswith("1 fault,")
    report = client(tmp_path).download_artifacts(parent.info.run_id, "audit.json", str(tmp_path))
    findings = json.loads(Path(report).read_text())["findings"]
    faults = [finding for finding in findings if finding["severity"] == "fault"]
    assert [{TRAIN, TEST} <= set(fault["pictures"]) for fault in faults] == [True]


def test_the_search_uses_the_findings_of_a_full_audit(tmp_path: Path, experiment: Path, run_here: RunHere) -> None:
    """A copy that was encoded again has another digest, so only the full audit finds it. The search knows of it afterwards."""
    files = archive_files(6, 2)
    copy = io.BytesIO()
    Image.open(io.BytesIO(files[TRAIN])).save(copy, "JPEG", quality=60)
    path = write_zip(tmp_path / "planted.zip", files | {TEST: copy.getvalue()})
    before = run_here("search", experiment, "--data", path, "--dry-run", folder=tmp_path)
    assert before.returncode == 0, before.stderr

    audited = run_here("data", "audit", path, folder=tmp_path)
    assert audited.returncode == 1, audited.stderr
    assert TRAIN in audited.stdout
    assert TEST in audited.stdout
    refused = run_here("search", experiment, "--data", path, folder=tmp_path)
    assert refused.returncode == 2
    assert TRAIN in refused.stderr
    assert TEST in refused.stderr


def test_the_error_for_missing_pictures_names_the_command_that_fetches_them(tmp_path: Path, experiment: Path) -> None:
    for arguments in (command(experiment), command(experiment, "--data", "nowhere.zip")):
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 2
        assert "python -m pneumo.data fetch kaggle" in done.stderr
