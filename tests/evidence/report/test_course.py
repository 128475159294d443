"""Tests of pneumo.evidence.report.course: the best value so far over trials, epochs and seconds, and what pruning saved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pneumo.evidence.report.course import best_so_far_figure, course_of, pruning_saved, timeline_figure
from pneumo.spec.result import Trial
from tests.support.study_records import made_trial

ONE = ("val_auc",)


def _timed(trial: Trial, started: float, ended: float) -> Trial:
    return replace(trial, result=replace(trial.result, started=started, ended=ended))


def test_the_best_value_follows_the_direction_and_the_order_in_which_trials_ended() -> None:
    trials = [made_trial(0, 0.5), made_trial(1, 0.7), made_trial(2, 0.4)]
    assert [point.best for point in course_of(trials, "val_auc", ONE)] == [0.5, 0.7, 0.7]
    assert [point.best for point in course_of(trials, "val_loss", ("val_loss",))] == [0.5, 0.5, 0.4]
    late = [_timed(trials[0], 0, 99), *trials[1:]]
    late = [_timed(late[0], 0, 99), _timed(late[1], 0, 10), _timed(late[2], 20, 30)]
    assert [point.trial.number for point in course_of(late, "val_auc", ONE)] == [1, 2, 0]


def test_seconds_count_only_while_a_trial_is_trained_and_parallel_ones_once() -> None:
    trials = [_timed(made_trial(n), *times) for n, times in enumerate([(0, 10), (5, 20), (100, 130)])]
    points = course_of(trials, "val_auc", ONE)
    assert [point.seconds for point in points] == [10, 20, 50]
    assert [point.epochs for point in points] == [2, 4, 6]


def test_the_line_is_made_of_steps_and_pruned_and_failed_trials_are_marked_apart() -> None:
    trials = [
        made_trial(0, 0.8),
        made_trial(1, 0.7, state="pruned"),
        made_trial(2, None, state="failed"),
        made_trial(3),
    ]
    figure = best_so_far_figure(course_of(trials, "val_auc", ONE), "trials", "val_auc", 0.8)
    assert not isinstance(figure, str)
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert traces["best so far"]["line"]["shape"] == "hv"
    assert (traces["best so far"]["x"], traces["best so far"]["y"]) == ([1, 2, 3, 4], [0.8, 0.8, 0.8, 0.9])
    assert [traces[state]["x"] for state in ("complete", "pruned", "failed")] == [[1, 4], [2], [3]]
    assert len({traces[state]["marker"]["symbol"] for state in ("complete", "pruned", "failed")}) == 3
    assert figure["layout"]["shapes"][0]["y0"] == 0.8
    assert (
        best_so_far_figure(course_of(trials[2:3], "val_auc", ONE), "trials", "val_auc", None)
        == "No trial is complete yet."
    )


def test_pruning_saved_the_epochs_that_pruned_trials_were_not_trained_for() -> None:
    trials = [made_trial(0, epochs_trained=10.0), made_trial(1, state="pruned", epochs_trained=2.0)]
    saving = pruning_saved(trials)
    assert (saving.trials, saving.epochs) == (1, 8)
    assert saving.share == pytest.approx(8 / 20)
    assert saving.seconds == pytest.approx(200)  # 50 seconds for 2 epochs
    assert pruning_saved(trials[:1]).share == 0


def test_times_are_in_utc() -> None:
    figure = timeline_figure([made_trial(0)])
    assert not isinstance(figure, str)
    assert figure["data"][0]["base"] == ["2026-01-01 12:00:00"]
    assert figure["data"][0]["x"] == [50_000]
    assert timeline_figure([_timed(made_trial(0), 50, 40)]) == "No trial has a beginning and an end."
