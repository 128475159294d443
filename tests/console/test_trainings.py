"""Tests of pneumo.console.trainings and display: what stands in a terminal, at several widths."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console, Group

from pneumo.console.display import progress_bar, say, say_command
from pneumo.console.trainings import StudyLine, TrainingLine, TrainingProgress, format_duration, training_table
from pneumo.spec.candidate import Candidate

HYPERPARAMETERS = {
    "layers": 3,
    "filters": 32,
    "filter_growth": 1.5,
    "kernel_size": 3,
    "dense_units": 256,
    "dropout": 0.25,
    "image_size": 96,
    "learning_rate": 0.000342,
    "weight_decay": 1e-5,
    "batch_size": 64,
}
NOTE = "val_stress_auc 0.9412  " + " ".join(f"{name}={value}" for name, value in HYPERPARAMETERS.items())
PARTS = ["12 of 30 trials done", "best 0.9810 (trial 6)", "2 running", "3 pruned", "1 failed", "about 14 min left"]


def shown(*renderables: object, width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(*renderables, end="")
    return [line.rstrip() for line in output.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_epoch_bar_and_time_are_shown_and_the_hyperparameters_give_way(width: int, workers: int) -> None:
    numbers = range(9, 9 + workers)
    lines = [TrainingLine(f"trial {number}", 4, 10, 0.35, 754.0, NOTE) for number in numbers]
    rows = shown(Group(StudyLine(PARTS), training_table(lines, width)), width=width)
    assert all(len(row) <= width for row in rows)
    trainings = rows[-workers:]
    for number, row in zip(numbers, trainings, strict=True):
        assert re.match(rf"  trial {number} +epoch 4/10 ━+╸? +0:12:34 val_stress_auc 0", row), row
        assert row.endswith("…") or "batch_size" in row
    # The study's line is broken between its parts only.
    assert " ".join(row.strip() for row in rows[:-workers]) == ", ".join(PARTS)


def test_what_is_not_known_yet_and_what_is_trained_to_its_end_have_no_clock() -> None:
    lines = [TrainingLine("trial 0", 1, 2, None, None, ""), TrainingLine("trial 1", 2, 2, 1.0, 0.0, "")]
    first, second = shown(training_table(lines, 80), width=80)
    assert "-:--:--" in first
    assert second.endswith("ending")


def test_the_time_left_follows_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pneumo.console.trainings.time.monotonic", lambda: now[0])
    output = io.StringIO()
    progress = TrainingProgress(Console(file=output, width=120, force_terminal=True, color_system=None), "val_auc")
    progress.start(0, Candidate(7, HYPERPARAMETERS | {"epochs": 4}, frozenset(HYPERPARAMETERS)), "trial 7")
    progress.step(0, 1, 1, 10)
    now[0] += 30.0
    progress.step(0, 2, 6, 10)  # 16 of 40 steps are done, 15 of them in 30 s
    progress.epoch(0, {"val_auc": 0.75})
    now[0] += 8.0
    with progress:
        pass
    assert "trial 7 epoch 2/4" in output.getvalue()
    assert "0:00:40 val_auc 0.7500  layers=3" in output.getvalue()
    assert progress.stop(0) == 38.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3_540, "59 min"), (3_600, "1 h"), (7_500, "2 h 05 min")],
)
def test_durations_are_said_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def terminal(width: int) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=width, force_terminal=True, color_system=None), output


def test_lines_break_between_words_and_commands_and_addresses_not_at_all() -> None:
    console, output = terminal(30)
    say(
        console, "\nUnder the changes of the stress suite, trial 2 is worse.\n  patients: told by the generator of them"
    )
    say(console, f"See https://{'a' * 40}/ there", indent=4)
    say_command(console, "  python -m pneumo.search experiments/article.yaml")
    assert output.getvalue().splitlines() == [
        "",
        "Under the changes of the",
        "stress suite, trial 2 is",
        "worse.",
        "  patients: told by the",
        "  generator of them",
        "See",
        f"    https://{'a' * 40}/",
        "    there",
        "  python -m pneumo.search experiments/article.yaml",
    ]
    log = io.StringIO()
    say(Console(file=log, width=30), "Without a terminal, a line is a line however long it is.")
    assert log.getvalue() == "Without a terminal, a line is a line however long it is.\n"


def test_a_bar_stands_from_the_first_item_to_the_last_only() -> None:
    console, output = terminal(80)
    with progress_bar("decoding", console) as bar:
        assert output.getvalue() == ""
        bar(1, 2)
        assert "decoding" in output.getvalue()
        bar(2, 2)
        end = output.getvalue()
        assert end.endswith("\x1b[2K")  # the bar's line is empty again
    assert output.getvalue() == end
    assert bar.was_used
