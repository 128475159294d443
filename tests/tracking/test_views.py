"""Tests of pneumo.tracking.views: what MLflow's page of a study shows."""

from __future__ import annotations

import json

from pneumo.tracking.views import BEST_VIEW, view_tags


def test_the_parallel_coordinates_have_only_what_every_trial_has() -> None:
    # MLflow leaves a run out of the chart if one parameter of the chart is missing in it.
    tags = view_tags(("val_auc",), ["layers", "optimizer", "momentum"], conditional=["momentum"])
    state = json.loads(json.loads(tags[f"mlflow.sharedViewState.{BEST_VIEW}"])["state"])
    (parallel,) = (chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert parallel["selectedParams"] == ["layers", "optimizer"]
    assert "params.`momentum`" in state["selectedColumns"]
