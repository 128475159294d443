"""What MLflow's pages show of a study: its columns, its order, its first charts.

MLflow's page of an experiment shows no metric as a column by itself, and begins its charts with the first in the
alphabet. It keeps named views, a choice of columns, order and charts, in tags of the experiment, lists them under
"Views", and opens one by its address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from pneumo.spec.names import Tags
from pneumo.spec.objective import OBJECTIVES, epoch_objective, objective_metric

STUDY_VIEW = "study"
BEST_VIEW = "best-first"

_TAG = "mlflow.sharedViewState."


def view_tags(objectives: Sequence[str], searched: Sequence[str]) -> dict[str, str]:
    """Tags of an experiment: two named views, the second ordered by the first objective, and that it trains models."""
    metrics = [f"metrics.`{objective_metric(objective)}`" for objective in objectives]
    columns = [*metrics, *(f"params.`{name}`" for name in searched)]
    by_trial = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    best_first = {
        "orderByKey": metrics[0],
        "orderByAsc": OBJECTIVES[objectives[0]] == "minimize",
        "searchFilter": f"tags.`{Tags.ROLE}` = 'trial'",
        **_first_charts(objectives, searched),
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        _TAG + STUDY_VIEW: _view("Study and its trials", by_trial | {"selectedColumns": columns}),
        _TAG + BEST_VIEW: _view("Trials, best first", best_first | {"selectedColumns": columns}),
    }


def study_page_address(experiment_id: str, view: str = STUDY_VIEW) -> str:
    """The address of an experiment's page with a view, to be put behind the address of the MLflow server."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view}"


def _first_charts(objectives: Sequence[str], searched: Sequence[str]) -> dict[str, object]:
    """A chart of the learning curves and one of what was tried; MLflow adds one for each other metric after them."""
    metric, last = epoch_objective(objectives), [objective_metric(objective) for objective in objectives]
    learning_curves = {"type": "LINE", "metricKey": metric, "xAxisKey": "step", "lineSmoothness": 0}
    tried = {"type": "PARALLEL", "selectedParams": list(searched), "selectedMetrics": last}
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
