"""Everything that MLflow stores for a study, as plain values. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pneumo.spec.names import Artifacts, Metrics, Tags
from pneumo.spec.run import RecordedRun
from pneumo.tracking.find import find_experiment
from pneumo.tracking.runs import read_artifact, recorded_run, runs_of
from pneumo.tracking.store import Store, pages

DELETED = "DELETED"

"""Status of a model that a run still lists after MLflow deleted it."""


@dataclass(frozen=True)
class ModelEntry:
    """A logged model.

    Attributes:
        model_id: The model's id in MLflow.
        status: MLflow's status, READY for a complete one; or DELETED.
        files: Paths of its files within the model.
    """

    model_id: str
    status: str
    files: frozenset[str]


@dataclass(frozen=True)
class RunContents:
    """A run with its learning curves, artifacts and models.

    All three are empty for a trial or confirmation that was KILLED: they are not read then.

    Attributes:
        run: The run.
        steps: For each metric of an epoch, the sorted steps as they were logged, duplicates included.
        artifacts: Paths of its artifacts, one folder deep.
        models: The models that the run logged.
    """

    run: RecordedRun
    steps: Mapping[str, tuple[int, ...]]
    artifacts: frozenset[str]
    models: tuple[ModelEntry, ...]


@dataclass(frozen=True)
class AliasEntry:
    """An alias of a registered model, with the number and the tags of its version."""

    model: str
    alias: str
    version: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Inventory:
    """Everything that MLflow stores for a study.

    Attributes:
        studies: The runs of role `study`; there should be exactly one.
        trials: The runs of role `trial`.
        confirmations: The runs of role `confirm`.
        promotions: The runs of role `promotion`.
        aliases: Aliases of registered models whose versions belong to the study.
        experiment_yaml: Text of this artifact of the first study run; None if it has none.
        trials_csv: The same.
        openings: Sorted numbers of the openings of the test pictures that the first study run lists in its tags.
    """

    studies: tuple[RunContents, ...]
    trials: tuple[RunContents, ...]
    confirmations: tuple[RunContents, ...]
    promotions: tuple[RunContents, ...]
    aliases: tuple[AliasEntry, ...]
    experiment_yaml: str | None
    trials_csv: str | None
    openings: tuple[int, ...]

    @property
    def runs(self) -> tuple[RunContents, ...]:
        """All runs, those of the study first."""
        return (*self.studies, *self.trials, *self.confirmations, *self.promotions)


def read_inventory(store: Store, name: str, study_id: str | None = None) -> Inventory | None:
    """Return everything that MLflow stores for a study, see `read_study`; None if it has no such study.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """
    client = store.client
    if (experiment := find_experiment(store, name, study_id)) is None:
        return None
    by_role: dict[str, list[RunContents]] = {role: [] for role in ("study", "trial", "confirm", "promotion")}
    for run in runs_of(client, experiment.experiment_id):
        if (role := run.data.tags.get(Tags.ROLE)) in by_role:
            by_role[role].append(_contents(client, run))
    study = by_role["study"][0] if by_role["study"] else None
    tags = study.run.tags if study else {}
    openings = [tag.removeprefix(Tags.TEST_OPENING) for tag in tags if tag.startswith(Tags.TEST_OPENING)]
    return Inventory(
        studies=tuple(by_role["study"]),
        trials=tuple(by_role["trial"]),
        confirmations=tuple(by_role["confirm"]),
        promotions=tuple(by_role["promotion"]),
        aliases=tuple(_aliases(client, name)),
        experiment_yaml=_text(store, study, Artifacts.EXPERIMENT),
        trials_csv=_text(store, study, Artifacts.TRIALS),
        openings=tuple(sorted(map(int, openings))),
    )


def _text(store: Store, study: RunContents | None, name: str) -> str | None:
    return read_artifact(store, study.run.run_id, name) if study and name in study.artifacts else None


def _contents(client: MlflowClient, run: Run) -> RunContents:
    recorded = recorded_run(run)
    if recorded.status == "KILLED" and recorded.role != "study":
        return RunContents(recorded, {}, frozenset(), ())
    steps: dict[str, tuple[int, ...]] = {}
    if recorded.role in ("trial", "confirm"):
        for name in Metrics.OF_EPOCH:
            if name in recorded.metrics:
                points = client.get_metric_history(recorded.run_id, name)
                steps[name] = tuple(sorted(point.step for point in points))
    artifacts: set[str] = set()
    for file in client.list_artifacts(recorded.run_id):
        files = client.list_artifacts(recorded.run_id, file.path) if file.is_dir else [file]
        artifacts.update(file.path for file in files)
    models: list[ModelEntry] = []
    if run.outputs and Tags.MODEL_REMOVED not in recorded.tags:
        models = [_model(client, output.model_id) for output in run.outputs.model_outputs]
    if not all(model.files for model in models):
        # A running search may have removed a model in the meantime; then the run's tag says so now.
        recorded = recorded_run(client.get_run(recorded.run_id))
    return RunContents(recorded, steps, frozenset(artifacts), tuple(models))


def _model(client: MlflowClient, model_id: str) -> ModelEntry:
    try:
        status = str(client.get_logged_model(model_id).status)
        return ModelEntry(model_id, status, frozenset(_files(client, model_id)))
    except MlflowException as error:
        # A run keeps listing a model that was deleted, by a user or because the trial was killed.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ModelEntry(model_id, DELETED, frozenset())


def _files(client: MlflowClient, model_id: str, folder: str | None = None) -> Iterator[str]:
    """Yield the paths of a model's files, at any depth."""
    for file in client.list_logged_model_artifacts(model_id, folder):
        if file.is_dir:
            yield from _files(client, model_id, file.path)
        else:
            yield str(file.path)


def _aliases(client: MlflowClient, study: str) -> Iterator[AliasEntry]:
    """Yield the aliases of pneumo's registered models whose version names this study, or names none."""
    for model in pages(lambda token: client.search_registered_models(max_results=100, page_token=token)):
        if Tags.DATA not in model.tags:
            continue
        for alias, number in model.aliases.items():
            tags = dict(client.get_model_version(model.name, str(number)).tags)
            if tags.get(Tags.STUDY, study) == study:
                yield AliasEntry(model.name, alias, str(number), tags)
