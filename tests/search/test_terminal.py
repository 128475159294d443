"""A search and `--watch` in real terminals: what stands on the screen in the middle of an epoch, and at the end."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.program import command, search, write
from tests.support.spaces import TEN_SEARCHED as SPACE
from tests.support.terminal import in_terminal

EPOCHS = 30
"""Enough of them that a trial is seen in the middle."""

UNDER_WAY = re.compile(r"  trial (\d+) +epoch (\d+)/\d+ ━+[╸╺]?━* +\d:\d\d:\d\d val_auc 0\.\d")
"""A trial in the middle: its number, epoch, bar, time left and value, whatever the width."""

STUDY = re.compile(
    r"(\d) of 2 trials done,( best 0\.\d+ \(trial \d\),)? (\d) running, (\d) pruned, (\d) failed,"
    r"( about \d+ (s|min) left,)? (\d+ min|1 h) of the 1 h left$"
)


def study(folder: Path, workers: int, epochs: int = EPOCHS) -> list[str]:
    """Write the experiment of a study of two trials, and return the command that searches it."""
    settings = {"trials": 2, "workers": workers, "timeout": "1h"}
    return command(write(folder, hyperparameters=SPACE | {"epochs": epochs}, search=settings).name)


def check_middle(middle: list[str], workers: int) -> None:
    """Check what stands on a screen while all workers train their first trial."""
    trainings = middle[-workers:]
    assert all(UNDER_WAY.match(line) and line.endswith("…") and "layers=" in line for line in trainings)
    above = " ".join(line.strip() for line in middle[:-workers])  # the line of the study may be two
    counts = STUDY.search(above)
    assert counts, above
    assert (counts[1], counts[3]) == ("0", str(workers))


def under_way(lines: list[str]) -> int:
    """Return how many trials are shown in the middle."""
    return sum(map(bool, map(UNDER_WAY.match, lines)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 35)], ids=["80x24", "120x35"])
def test_two_trials_in_the_middle_of_an_epoch(size: tuple[int, int], tmp_path: Path) -> None:
    # They are so long that neither ends while the other one starts. Ctrl-C ends both.
    with in_terminal(study(tmp_path, 2, epochs=5_000), tmp_path, size) as terminal:
        check_middle(terminal.read_until(lambda lines: under_way(lines) == 2), 2)
        terminal.program.send_signal(signal.SIGINT)
        assert terminal.read_to_the_end() == 130
        assert under_way(terminal.all_lines) == 0
        assert "Interrupted. Everything so far is saved." in " ".join(terminal.all_lines)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 35)], ids=["80x24", "120x35"])
def test_the_middle_of_an_epoch_and_the_end(size: tuple[int, int], tmp_path: Path) -> None:
    with in_terminal(study(tmp_path, 1), tmp_path, size) as terminal:
        check_middle(terminal.read_until(lambda lines: under_way(lines) == 1), 1)
        assert terminal.read_to_the_end() == 0
        written = terminal.all_lines
    assert under_way(written) == 0
    assert not [line for line in written if "running," in line]  # nothing of the bars is left
    text = " ".join(line.strip() for line in written)
    for number in range(2):
        assert re.search(rf"{number + 1} of 2 done  trial {number}   complete", text)
    for name in SPACE:
        assert re.search(rf"[ │┃]{name}[ =│┃]", text), name  # no word is broken
    assert re.search(
        r"Trial 1 reaches val_auc [01]\.?\d*, 0\.\d{4} above the tutorial's network \(95 % interval by patient "
        r"[+-]\d\.\d{3} to [+-]\d\.\d{3}\)\.|The tutorial's own network \(trial 0\) is still the best",
        text,
    )


@pytest.mark.slow
def test_watch_shows_a_study_that_runs_elsewhere_and_changes_nothing(tmp_path: Path) -> None:
    searching = subprocess.Popen(study(tmp_path, 1), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert searching.stdout is not None
        for line in searching.stdout:
            if line.startswith("MLflow: "):
                break
        with in_terminal(command("--watch", "small"), tmp_path, (80, 24)) as terminal:
            middle = terminal.read_until(lambda lines: any(map(UNDER_WAY.match, lines)))
            above = " ".join(line.strip() for line in middle if not UNDER_WAY.match(line))
            assert re.search(
                r"0 of 2 trials done, 1 running, 0 pruned, 0 failed, (\d+ min|1 h) of the 1 h left", above
            ), above
            terminal.program.send_signal(signal.SIGINT)
            assert terminal.read_to_the_end() == 130
        # Without a terminal it ends with the study.
        watched = search("--watch", "small", folder=tmp_path)
        assert watched.returncode == 0, watched.stderr
        assert searching.wait(60) == 0
    finally:
        searching.kill()
    lines = watched.stdout.splitlines()
    assert lines[0].startswith("Watching study small in sqlite:///")
    assert any(re.match(rf" +trial 0  epoch \d+/{EPOCHS}  (val_auc 0\.\d{{4}}  )?layers=", line) for line in lines)
    assert [line[:29] for line in lines if "complete" in line] == [
        "  1 of 2 done  trial 0   comp",
        "  2 of 2 done  trial 1   comp",
    ]
    assert "Study small has ended (all 2 trials are done): 2 of 2 trials done, best " in watched.stdout

    before = digest(tmp_path)
    again = search("--watch", "small", folder=tmp_path)
    assert (again.returncode, digest(tmp_path)) == (0, before)
    ended, unknown = again.stdout, search("--watch", "smal", folder=tmp_path)
    assert ended.startswith("Study small has ended")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "--watch smal: there is no such study" in unknown.stderr
    # On another machine there is MLflow alone.
    shutil.move(tmp_path / "mlruns" / "studies.db", tmp_path / "studies.db")
    assert search("--watch", "small", folder=tmp_path).stdout == ended
    moved = search("--watch", "small", "--storage", f"sqlite:///{tmp_path}/studies.db", folder=tmp_path)
    assert moved.stdout == ended


def digest(folder: Path) -> dict[str, str]:
    """Return a hash of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
