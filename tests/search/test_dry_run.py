"""What a dry run shows of the pictures and of what trials train on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pneumo.data.sources import open_source
from pneumo.search.dry_run import show_dry_run
from pneumo.spec.experiment import DataSpec, Experiment
from tests.support.in_process import RunHere
from tests.support.pictures import archive_files, write_zip
from tests.support.program import write


def test_a_dry_run_says_which_files_are_not_taken(tmp_path: Path) -> None:
    others = {"train/NORMAL/a.png": b"", "train/NORMAL/b.heic": b"x", ".git/config": b"x"}
    data = DataSpec(path=str(write_zip(tmp_path / "a.zip", archive_files(10) | others, "")), validation=0.3)
    out = io.StringIO()
    show_dry_run(Experiment(name="small", data=data), open_source(data), (), None, Console(file=out, width=200))
    assert "train/NORMAL/a.png: left out: empty: it has 0 bytes\n" in out.getvalue()
    assert "\nTraining on: " in out.getvalue()
    assert "2 files not taken: 1 .heic (not read), 1 in hidden folders\n" in out.getvalue()


def test_a_dry_run_says_what_a_trial_takes_of_a_cluster_and_joins_none(run_here: RunHere, tmp_path: Path) -> None:
    experiment = write(tmp_path, compute={"cpus": 2, "resources": {"a100": 1}})
    done = run_here("search", experiment, "--dry-run", "--ray", "10.0.0.1:6379", "--workers", 8, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    line = "Training on: Ray (10.0.0.1:6379), each trial with 2 cores, 1 a100, at most 8 trials at a time\n"
    assert line in done.stdout


@pytest.mark.parametrize("options", [["--dry-run"], []], ids=["dry run", "search"])
def test_gpus_that_are_not_there_are_refused_before_anything_is_written(
    run_here: RunHere, tmp_path: Path, options: list[str]
) -> None:
    experiment = write(tmp_path)
    done = run_here("search", experiment, *options, folder=tmp_path, CUDA_VISIBLE_DEVICES="77")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        "pneumo.search: CUDA_VISIBLE_DEVICES=77: this machine has no GPU 77 that trials can use"
    )
    shared = run_here("search", experiment, *options, "--gpu-share", 0.5, folder=tmp_path, CUDA_VISIBLE_DEVICES="-1")
    assert (shared.returncode, shared.stdout, shared.stderr.count("\n")) == (2, "", 1)
    assert "--gpu-share 0.5: there is no usable GPU to share" in shared.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiment.yaml"]
