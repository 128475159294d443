"""Find the faults of a single run: what it lacks, and where it contradicts the engine's result or itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Artifacts, Metrics, Params, Tags
from pneumo.spec.objective import STRESS_OBJECTIVES, objective_metric
from pneumo.spec.result import Trial
from pneumo.spec.run import STATUS, RecordedRun, format_parameter

if TYPE_CHECKING:
    from pneumo.tracking.inventory import RunContents

PLOTS = ("calibration", "confusion_matrix", "learning_curves", "mistakes", "precision_recall", "roc")
TRAINING_FILES = frozenset(
    {
        Artifacts.HISTORY,
        Artifacts.PREDICTIONS,
        Artifacts.EXPERIMENT,
        *(Artifacts.plot(f"{name}.png") for name in PLOTS),
    }
)
"""Artifacts of a complete or pruned trial. `Tags.PLOTS` names more plots; earlier versions did not set it."""

STRESS_FILES = frozenset({Artifacts.STRESS, Artifacts.STRESS_PREDICTIONS, Artifacts.plot("stress.png")})
"""Artifacts of a training that was judged on the stress suite."""

VERDICT_FILES = frozenset({Artifacts.GATE, Artifacts.CARD})
"""Artifacts of a finished promotion."""

MODEL_FILES = frozenset({"MLmodel", "data/model.keras"})
"""Files of a model."""

_MOST_STEPS = 20
"""Number of steps of a learning curve that a fault lists."""


def number_of(run: RecordedRun) -> int | None:
    """Return the number of the run's trial; None if the run does not record it."""
    text = run.tags.get(Tags.TRIAL, "")
    return int(text) if text.isdigit() else None


def trial_faults(
    experiment: Experiment, trial: Trial, seed: int, contents: RunContents, *, may_run: bool
) -> Iterator[str]:
    """Yield the faults of the run of a finished trial.

    Args:
        experiment: The study's experiment.
        trial: The trial as the engine stores it.
        seed: The seed that it was trained with.
        contents: Its run.
        may_run: Whether a search is running that may not have closed the run yet.
    """
    run, result = contents.run, trial.result
    if not (may_run and run.status == "RUNNING"):
        in_engine = {"status": STATUS[result.state], "state": result.state, "error": result.error or ""}
        in_mlflow = {"status": run.status, "state": run.state or "", "error": run.tags.get(Tags.ERROR, "")}
        yield from _differences(in_engine, in_mlflow)
    parameters = {name: format_parameter(value) for name, value in trial.candidate.hyperparameters.items()}
    yield from _differences(parameters | {Params.SEED: str(seed)}, run.parameters)
    metrics = dict(result.metrics)
    objective = experiment.search.objectives[0]
    # The value of a pruned trial on the stress suite is that of an epoch.
    if result.value is not None and not (result.state == "pruned" and objective in STRESS_OBJECTIVES):
        metrics[objective_metric(objective)] = result.value
    for name, value in metrics.items():
        if not same_value(value, run.metrics.get(name)):
            yield f"{name} is {run.metrics.get(name)}, and {value} in the engine"
    match result.state:
        case "complete":
            yield from _training_faults(contents, trial.candidate.epochs, trial.candidate.values.early_stopping)
            yield from _model_faults(contents)
        case "pruned":
            yield from _training_faults(contents, None)
            if contents.models:
                yield "has a model, though it was pruned"
        case "failed":
            yield from _step_faults(contents)


def confirmation_faults(contents: RunContents) -> Iterator[str]:
    """Yield the faults of the run of a complete confirmation."""
    epochs, early_stopping = (contents.run.parameters.get(name, "") for name in ("epochs", "early_stopping"))
    yield from _training_faults(
        contents, int(epochs) if epochs.isdigit() else None, int(early_stopping) if early_stopping.isdigit() else 0
    )
    yield from _model_faults(contents)


def promotion_faults(contents: RunContents) -> Iterator[str]:
    """Yield the faults of the run of a finished promotion."""
    if contents.run.tags.get(Tags.JUDGED) != "true":
        yield "is FINISHED, and the test pictures were not judged"
    if not any(name.startswith(Metrics.TEST) for name in contents.run.metrics):
        yield "is FINISHED and has no figure of the test pictures"
    if missing := sorted(VERDICT_FILES - contents.artifacts):
        yield f"lacks {', '.join(missing)}"


def same_value(expected: float, metric: float | None) -> bool:
    """Return whether a metric in MLflow is the value that was logged."""
    if metric is None:
        return False
    # MLflow stores infinity as the largest float.
    both_infinite = math.isinf(expected) and abs(metric) > 1e308 and expected * metric > 0
    return expected == metric or both_infinite or (math.isnan(expected) and math.isnan(metric))


def _training_faults(contents: RunContents, epochs: int | None, early_stopping: int = 0) -> Iterator[str]:
    """Yield the faults of learning curves and artifacts; `epochs` is None if the training was pruned."""
    yield from _step_faults(contents)
    lengths = {len(steps) for steps in contents.steps.values()}
    trained = max(lengths, default=0)
    if len(lengths) > 1:
        yield f"its learning curves are of different lengths: {', '.join(map(str, sorted(lengths)))}"
    if trained == 0:
        yield "has no learning curve"
    best_epoch = contents.run.metrics.get(Metrics.BEST_EPOCH)
    if epochs is not None and early_stopping and best_epoch is not None:
        epochs = min(epochs, int(best_epoch) + early_stopping)
    if epochs is not None and trained not in (0, epochs):
        yield f"has {trained} epochs, and was trained for {epochs}"
    if trained and not 1 <= (best_epoch or 0) <= trained:
        yield f"best_epoch is {best_epoch}, and it has {trained} epochs"
    tags = contents.run.tags
    files = TRAINING_FILES | STRESS_FILES if Tags.STRESS in tags else TRAINING_FILES
    files |= {Artifacts.plot(f"{name}.png") for name in tags.get(Tags.PLOTS, "").split(", ") if name}
    if "causes" in tags.get(Tags.PLOTS, "").split(", "):
        files |= {Artifacts.CAUSES}
    if missing := sorted(files - contents.artifacts):
        yield f"lacks {', '.join(missing)}"


def _step_faults(contents: RunContents) -> Iterator[str]:
    for name, steps in contents.steps.items():
        if list(steps) != list(range(1, len(steps) + 1)):
            more = ", ..." if len(steps) > _MOST_STEPS else ""
            yield f"{name} has the steps {', '.join(map(str, steps[:_MOST_STEPS]))}{more}, expected 1, 2, 3, ..."


def _model_faults(contents: RunContents) -> Iterator[str]:
    if contents.run.tags.get(Tags.MODEL_REMOVED):
        return  # Removed by `search.keep`. If that was interrupted, the end of the next trial removes the rest.
    if len(contents.models) != 1:
        yield f"has {len(contents.models)} models, expected 1"
    for model in contents.models:
        if model.status != "READY":
            yield f"its model {model.model_id} is {model.status}"
        elif missing := sorted(MODEL_FILES - model.files):
            yield f"its model {model.model_id} lacks {', '.join(missing)}"


def _differences(in_engine: Mapping[str, str], in_mlflow: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*in_engine, *in_mlflow}):
        if in_engine.get(name) != in_mlflow.get(name):
            yield f"{name} is {in_mlflow.get(name)}, and {in_engine.get(name)} in the engine"
