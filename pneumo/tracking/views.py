"""What MLflow's pages show of a study: its columns, its order, its first charts.

MLflow's page of an experiment shows no metric as a column by itself, and begins its charts with the first in the
alphabet. It keeps named views, a choice of columns, order and charts, in tags of the experiment, lists them under
"Views", and opens one by its address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES, epoch_objective

STUDY_VIEW = "study"
BEST_VIEW = "best-first"

_TAG = "mlflow.sharedViewState."


def objective_metric(objective: str) -> str:
    """The metric, logged once a trial, that holds a trial's objective: `best_val_auc` for `val_auc`."""
    return f"best_{objective}" if objective in EPOCH_OBJECTIVES else objective


def view_tags(objective: str, searched: Sequence[str]) -> dict[str, str]:
    """Tags of an experiment: two named views, and that it trains models."""
    metric = f"metrics.`{objective_metric(objective)}`"
    columns = [metric, *(f"params.`{name}`" for name in searched)]
    by_trial = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    best_first = {
        "orderByKey": metric,
        "orderByAsc": OBJECTIVES[objective] == "minimize",
        "searchFilter": "tags.`pneumo.role` = 'trial'",
        **_first_charts(objective, searched),
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        _TAG + STUDY_VIEW: _view("Study and its trials", by_trial | {"selectedColumns": columns}),
        _TAG + BEST_VIEW: _view("Trials, best first", best_first | {"selectedColumns": columns}),
    }


def page(experiment_id: str, view: str = STUDY_VIEW) -> str:
    """The address of an experiment's page with a view, to be put behind the address of the MLflow server."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view}"


def _first_charts(objective: str, searched: Sequence[str]) -> dict[str, object]:
    """A chart of the learning curves and one of what was tried; MLflow adds one for each other metric after them."""
    learning_curves = {"type": "LINE", "metricKey": epoch_objective(objective), "xAxisKey": "step", "lineSmoothness": 0}
    tried = {"type": "PARALLEL", "selectedParams": list(searched), "selectedMetrics": [objective_metric(objective)]}
    section = {"uuid": "model", "name": "Model metrics", "display": True}
    return {
        "compareRunCharts": [
            {"uuid": chart["type"], "metricSectionId": section["uuid"]} | chart for chart in (learning_curves, tried)
        ],
        # In a section that says it is not reordered, MLflow puts the charts by their names.
        "compareRunSections": [section | {"isReordered": True}],
    }


def _view(name: str, state: dict[str, object]) -> str:
    return json.dumps({"name": name, "createdAt": int(time.time() * 1000), "state": json.dumps(state)})
