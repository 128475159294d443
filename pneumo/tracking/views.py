"""Named views of a study in MLflow's pages: columns, order and charts.

By default, MLflow's page of an experiment shows no metric as a column, and its charts are in alphabetical order. A named view
sets columns, order and charts. MLflow stores it in a tag of the experiment, lists it under "Views", and opens it by its
address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence

from pneumo.spec.names import Tags
from pneumo.spec.objective import OBJECTIVES, epoch_metric, epoch_objective, objective_metric

STUDY_VIEW = "study"
"""Name of the view of the study and its trials, latest first."""

BEST_VIEW = "best-first"
"""Name of the view of the trials, best first."""

_VIEW_TAG = "mlflow.sharedViewState."


def view_tags(objectives: Sequence[str], searched: Sequence[str], conditional: Collection[str] = ()) -> dict[str, str]:
    """Return the tags of an MLflow experiment: two named views, and that the experiment trains models.

    Args:
        objectives: The study's objectives; `BEST_VIEW` is ordered by the first.
        searched: The hyperparameters that are searched.
        conditional: Those of them that some trials do not have. They are columns. The parallel coordinates leave them out,
            because MLflow draws only the runs that have every parameter of the chart.
    """
    metrics = [f"metrics.`{objective_metric(objective)}`" for objective in objectives]
    columns = [*metrics, *(f"params.`{name}`" for name in searched)]
    by_trial = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    best_first = {
        "orderByKey": metrics[0],
        "orderByAsc": OBJECTIVES[objectives[0]] == "minimize",
        # A trial that was interrupted runs again under its number, in a run of its own.
        "searchFilter": f"tags.`{Tags.ROLE}` = 'trial' and attributes.status != 'KILLED'",
        **_first_charts(objectives, [name for name in searched if name not in conditional]),
    }
    return {
        "mlflow.experimentKind": "custom_model_development",
        _VIEW_TAG + STUDY_VIEW: _view("Study and its trials", by_trial | {"selectedColumns": columns}),
        _VIEW_TAG + BEST_VIEW: _view("Trials, best first", best_first | {"selectedColumns": columns}),
    }


def study_page_address(experiment_id: str, view: str = BEST_VIEW, *, charts: bool = True) -> str:
    """Return the address of an experiment's page with a view, relative to the address of the MLflow server.

    Args:
        experiment_id: Id of the MLflow experiment.
        view: One of the named views.
        charts: Whether the page shows the runs as charts, beside the list of their names, or as a table.
    """
    # Without workflowType, MLflow shows its pages for language models, whatever the experiment's tags say.
    mode = "CHART" if charts else "TABLE"
    return (
        f"/#/experiments/{experiment_id}/runs"
        f"?workflowType=machine_learning&viewStateShareKey={view}&compareRunsMode={mode}"
    )


def describe_experiment(experiment_id: str, study: str) -> str:
    """Return the description at the head of the experiment's page. MLflow's list of experiments shows it as plain text."""
    page = study_page_address(experiment_id).removeprefix("/")
    return f"`python -m pneumo.ui {study}` opens this study at its [trials, best first]({page})."


def run_page_address(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page, relative to any page of the MLflow server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def _first_charts(objectives: Sequence[str], hyperparameters: Sequence[str]) -> dict[str, object]:
    """Return a chart of learning curves and one of hyperparameters. MLflow adds a chart for each other metric."""
    metric = epoch_metric(epoch_objective(objectives))
    trial_metrics = [objective_metric(objective) for objective in objectives]
    learning_curves = {"type": "LINE", "metricKey": metric, "xAxisKey": "step", "lineSmoothness": 0}
    parallel = {"type": "PARALLEL", "selectedParams": list(hyperparameters), "selectedMetrics": trial_metrics}
    section = {"uuid": "model", "name": "Model metrics", "display": True}
    return {
        "compareRunCharts": [
            {"uuid": chart["type"], "metricSectionId": section["uuid"]} | chart for chart in (learning_curves, parallel)
        ],
        # Without isReordered, MLflow sorts the charts by name.
        "compareRunSections": [section | {"isReordered": True}],
    }


def _view(name: str, state: dict[str, object]) -> str:
    return json.dumps({"name": name, "createdAt": int(time.time() * 1000), "state": json.dumps(state)})
