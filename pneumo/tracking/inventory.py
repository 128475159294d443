"""All that MLflow holds of a study, as plain values, read without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import FileInfo, Run
from mlflow.exceptions import MlflowException

from pneumo.tracking.models import REMOVED
from pneumo.tracking.recorded import EPOCH_METRICS
from pneumo.tracking.store import Store, pages
from pneumo.tracking.study import artifact, check_active, runs_of

DELETED = "DELETED"
"""Status of a model that its run lists and MLflow has no more."""

_OPENING = "pneumo.test_opening."


@dataclass(frozen=True)
class ModelEntry:
    """A logged model: `status` as MLflow says it, READY where it is whole, or DELETED; `files` are paths within it."""

    model_id: str
    status: str
    files: frozenset[str]


@dataclass(frozen=True)
class RunEntry:
    """A run. `began` and `ended` are milliseconds since 1970. `steps` has the steps of each metric of an epoch as they were
    logged, doubled ones too, in order; `artifacts` are paths. A run that was KILLED is listed without either, and without
    models."""

    run_id: str
    role: str
    status: str
    began: int
    ended: int | None
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    artifacts: frozenset[str] = frozenset()
    models: tuple[ModelEntry, ...] = ()

    @property
    def number(self) -> int | None:
        """Of the trial; None where the run does not say it."""
        said = self.tags.get("pneumo.trial", "")
        return int(said) if said.isdigit() else None

    @property
    def state(self) -> str | None:
        return self.tags.get("pneumo.state")


@dataclass(frozen=True)
class AliasEntry:
    """An alias of a registered model of this study, its version's number and tags (see `pneumo.promotion`)."""

    model: str
    alias: str
    version: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Inventory:
    """`studies` are the runs of role `study`, of which there should be one; the texts are artifacts of the first, None
    where they are not there. `openings` are the numbers of the openings of the test pictures that it lists."""

    studies: tuple[RunEntry, ...]
    trials: tuple[RunEntry, ...]
    confirmations: tuple[RunEntry, ...]
    promotions: tuple[RunEntry, ...]
    aliases: tuple[AliasEntry, ...]
    experiment_yaml: str | None
    trials_csv: str | None
    openings: tuple[int, ...]


def inventory(store: Store, name: str) -> Inventory | None:
    """What MLflow holds of the study of this name; None where it has no such study.

    Raises `RequestError` where MLflow's experiment of this name has been deleted.
    """
    client = store.client
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    check_active(store, experiment)
    found: dict[str, list[RunEntry]] = {role: [] for role in ("study", "trial", "confirm", "promotion")}
    for run in runs_of(client, experiment.experiment_id):
        if (role := run.data.tags.get("pneumo.role")) in found:
            found[role].append(_entry(client, run, role))
    studies = tuple(found["study"])
    first = studies[0] if studies else None
    texts = {
        text: artifact(store, first.run_id, text) if first and text in first.artifacts else None
        for text in ("experiment.yaml", "trials.csv")
    }
    listed = [key.removeprefix(_OPENING) for key in (first.tags if first else {}) if key.startswith(_OPENING)]
    return Inventory(
        studies,
        tuple(found["trial"]),
        tuple(found["confirm"]),
        tuple(found["promotion"]),
        tuple(_aliases(client, name)),
        texts["experiment.yaml"],
        texts["trials.csv"],
        tuple(sorted(map(int, listed))),
    )


def _entry(client: MlflowClient, run: Run, role: str) -> RunEntry:
    run_id, status = run.info.run_id, run.info.status
    steps: dict[str, tuple[int, ...]] = {}
    artifacts: set[str] = set()
    models: list[ModelEntry] = []
    if status != "KILLED" or role == "study":
        if role in ("trial", "confirm"):
            logged = [name for name in EPOCH_METRICS if name in run.data.metrics]
            steps = {name: tuple(sorted(m.step for m in client.get_metric_history(run_id, name))) for name in logged}
        for file in client.list_artifacts(run_id):
            found = client.list_artifacts(run_id, file.path) if file.is_dir else [file]
            artifacts |= {one.path for one in found}
        if run.outputs and REMOVED not in run.data.tags:
            models = [_model(client, output.model_id) for output in run.outputs.model_outputs]
        if not all(model.files for model in models):
            run = client.get_run(run_id)  # a search at work may have removed one since, and then its tag says so
    return RunEntry(
        run_id,
        role,
        status,
        run.info.start_time,
        run.info.end_time,
        run.data.params,
        run.data.metrics,
        run.data.tags,
        steps,
        frozenset(artifacts),
        tuple(models),
    )


def _model(client: MlflowClient, model_id: str) -> ModelEntry:
    try:
        status = str(client.get_logged_model(model_id).status)
        return ModelEntry(model_id, status, frozenset(_files(client, model_id)))
    except MlflowException as error:
        # What a run lists of models stays when one is deleted: by hand, or of a trial that was killed.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ModelEntry(model_id, DELETED, frozenset())


def _files(client: MlflowClient, model_id: str, folder: str | None = None) -> Iterator[str]:
    found: list[FileInfo] = client.list_logged_model_artifacts(model_id, folder)
    for file in found:
        if file.is_dir:
            yield from _files(client, model_id, file.path)
        else:
            yield str(file.path)


def _aliases(client: MlflowClient, study: str) -> Iterator[AliasEntry]:
    """The aliases of the models that pneumo has made, of versions that say they are of this study or do not say of which."""
    for model in pages(lambda token: client.search_registered_models(max_results=100, page_token=token)):
        if "pneumo.data" not in model.tags:
            continue
        for alias, number in model.aliases.items():
            tags = dict(client.get_model_version(model.name, str(number)).tags)
            if tags.get("pneumo.study", study) == study:
                yield AliasEntry(model.name, alias, str(number), tags)
