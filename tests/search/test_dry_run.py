"""What a dry run shows of the pictures."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from pneumo.data.sources import open_source
from pneumo.search.dry_run import show_dry_run
from pneumo.spec.experiment import DataSpec, Experiment
from tests.support.pictures import archive_files, write_zip


def test_a_dry_run_says_which_files_are_not_taken(tmp_path: Path) -> None:
    others = {"train/NORMAL/a.png": b"", "train/NORMAL/b.heic": b"x", ".git/config": b"x"}
    data = DataSpec(path=str(write_zip(tmp_path / "a.zip", archive_files(10) | others, "")), validation=0.3)
    out = io.StringIO()
    show_dry_run(Experiment(name="small", data=data), open_source(data), (), Console(file=out, width=200))
    assert "train/NORMAL/a.png: left out: empty: it has 0 bytes\n" in out.getvalue()
    assert "2 files not taken: 1 .heic (not read), 1 in hidden folders\n" in out.getvalue()
