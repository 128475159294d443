"""Who draws the plots of a trial: the driver, or the worker if the driver is behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pneumo.tracking.operations import DrawPlots, LogArtifacts
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.trial_log import TrialLog
from pneumo.training import record


@pytest.mark.parametrize(
    ("draws", "fails", "operation"),
    [(False, False, DrawPlots()), (True, False, LogArtifacts()), (True, True, DrawPlots())],
)
def test_a_worker_draws_if_the_driver_is_behind_and_no_plot_fails_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: bool, fails: bool, operation: object
) -> None:
    def draw(values: bytes) -> dict[str, bytes]:
        if fails:
            raise ValueError("no font")
        return {"plots/roc.png": values}

    monkeypatch.setattr(record, "draw_plots", draw)
    outbox, task = open_outbox(tmp_path / "outbox"), SimpleNamespace(draws=draws)
    record._log_plots(task, b"values", TrialLog(outbox, "run"))  # type: ignore[arg-type]
    queued = next(iter(outbox.first(1)), None) or outbox.first_to_draw()
    assert queued is not None
    assert queued.operation == operation
    assert outbox.has_more_to_draw_than(0) == isinstance(operation, DrawPlots)
    assert not outbox.has_more_to_draw_than(1)
