"""What MLflow stores about promotions: a run for each, and each opening of a study's test pictures.

An opening is recorded in the study's run before the first test picture is read: in a tag such as `pneumo.test_opening.0001`
(when, by whom, for which run) and in the metric `test_openings`. An interrupted promotion resumes its own run and its own
opening.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Metrics, Tags
from pneumo.tracking.find import explain_missing, latest_study, list_studies
from pneumo.tracking.operations import now
from pneumo.tracking.runs import close_run, log_files, user_name
from pneumo.tracking.store import Store
from pneumo.tracking.study import RecordedStudy, experiment_id, read_study

_RUN_ID_LENGTH = 32


@dataclass(frozen=True)
class PromotionRequest:
    """What is to be promoted.

    Attributes:
        study: Name of the study.
        recorded: What the study's run says.
        run_id: The trial's run; None for the best trial of the study.
    """

    study: str
    recorded: RecordedStudy
    run_id: str | None = None


@dataclass(frozen=True)
class Opening:
    """An opening of the sealed test pictures.

    Attributes:
        at: When, ISO 8601 in UTC.
        who: Name of the user.
        run_id: The trial's run that was judged.
        promotion: The promotion's run.
    """

    at: str
    who: str
    run_id: str
    promotion: str


@dataclass(frozen=True)
class PromotionRun:
    """The run of a promotion.

    Attributes:
        run_id: Its id.
        judged: Whether it has the complete evaluation on the test pictures.
        status: MLflow's status of the run.
    """

    run_id: str
    judged: bool
    status: str


def find_request(store: Store, what: str | None) -> PromotionRequest:
    """Return what is to be promoted.

    Args:
        store: MLflow.
        what: Name of a study, or id of a study's or a trial's run; None for the study that was started last.

    Raises:
        RequestError: There is no such study or run.
    """
    if what is None:
        what = latest_study(store)
    if recorded := read_study(store, what):
        return PromotionRequest(what, recorded)
    run = _find_run(store, what) if len(what) == _RUN_ID_LENGTH else None
    if run is None:
        explain_missing(store, what)
        raise RequestError(f"{what}: neither a study nor a run in {store.display_uri}; there is {list_studies(store)}")
    role, study = run.data.tags.get(Tags.ROLE), run.data.tags.get(Tags.STUDY, "")
    if role not in ("study", "trial", "confirm") or (recorded := read_study(store, study)) is None:
        raise RequestError(f"{what}: a run of role {role}; give the run of a trial or of a study")
    return PromotionRequest(study, recorded, None if role == "study" else what)


def read_openings(store: Store, study: RecordedStudy) -> list[Opening]:
    """Return the openings of the study's test pictures, in order."""
    tags = store.client.get_run(study.run_id).data.tags
    return [Opening(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(Tags.TEST_OPENING)]


def count_openings_elsewhere(store: Store, study: str, test: str) -> int:
    """Return how often other studies of this store opened the test pictures with the digest `test`."""
    experiments, own = store.client.search_experiments(max_results=1000), experiment_id(store, study)
    ids = [experiment.experiment_id for experiment in experiments if experiment.experiment_id != own]
    if not ids:
        return 0
    condition = f"tags.`{Tags.ROLE}` = 'promotion' and tags.`{Tags.DATA_TEST}` = '{test}'"
    return len(store.client.search_runs(ids, condition, max_results=1000))


def find_run(store: Store, study: str, key: str) -> PromotionRun | None:
    """Return the run of the promotion with a key; None if there is none."""
    runs = store.client.search_runs(
        [experiment_id(store, study)],
        f"tags.`{Tags.PROMOTION_KEY}` = '{key}'",
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=1,
    )
    return PromotionRun(runs[0].info.run_id, Tags.JUDGED in runs[0].data.tags, runs[0].info.status) if runs else None


def open_run(
    store: Store,
    study: str,
    recorded: RecordedStudy,
    *,
    key: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
) -> PromotionRun:
    """Open the run of a promotion: the one with the same key, or a new one.

    Args:
        store: MLflow.
        study: Name of the study.
        recorded: What the study's run says.
        key: Identifies the promotion.
        name: Name of a new run.
        tags: Tags of a new run.
        params: Parameters of a new run.
    """
    client, experiment = store.client, experiment_id(store, study)
    if earlier := find_run(store, study, key):
        client.update_run(earlier.run_id, status="RUNNING")
        return earlier
    own_tags = {
        Tags.ROLE: "promotion",
        Tags.STUDY: study,
        Tags.PROMOTION_KEY: key,
        Tags.PARENT: recorded.run_id,
        Tags.USER: user_name(),
        Tags.SOURCE_NAME: "pneumo.promote",
        Tags.SOURCE_TYPE: "LOCAL",
    }
    run_id = client.create_run(experiment, tags=own_tags | dict(tags), run_name=name).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return PromotionRun(run_id, False, "RUNNING")


def record_opening(store: Store, study: RecordedStudy, run_id: str, promotion: str) -> list[Opening]:
    """Record that the test pictures are about to be opened, and return all openings, this one last.

    Args:
        store: MLflow.
        study: What the study's run says.
        run_id: The trial's run that is to be judged.
        promotion: The promotion's run.
    """
    openings = read_openings(store, study)
    if any(opening.promotion == promotion for opening in openings):
        return openings  # The promotion was interrupted within its opening, before anyone saw a result.
    opening = Opening(datetime.now(UTC).isoformat(timespec="seconds"), user_name(), run_id, promotion)
    openings = [*openings, opening]
    count = Metric(Metrics.TEST_OPENINGS, len(openings), now(), len(openings))
    tag = RunTag(f"{Tags.TEST_OPENING}{len(openings):04d}", json.dumps(asdict(opening)))
    store.client.log_batch(study.run_id, metrics=[count], tags=[tag])
    return openings


def record_judged(
    store: Store,
    run_id: str,
    *,
    model_id: str,
    test: str,
    source: str,
    counts: Mapping[str, int],
    metrics: Mapping[str, float],
    files: Mapping[str, str | bytes],
    tags: Mapping[str, str],
) -> None:
    """Record the evaluation on the test pictures. The tag that it is complete is written last.

    Args:
        store: MLflow.
        run_id: The promotion's run.
        model_id: Its model, which gets the metrics too.
        test: Digest of the test pictures.
        source: Path or address of the pictures.
        counts: Numbers of test pictures and patients.
        metrics: Metrics of the run.
        files: Artifacts by path in the run.
        tags: Tags of the run.
    """
    client, at = store.client, now()
    dataset = Dataset(
        name="test",
        digest=test,
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(dict(counts)),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(Tags.DATASET_CONTEXT, "test")])])
    log_files(client, run_id, files)
    of_model = {"model_id": model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest}
    client.log_batch(run_id, metrics=[Metric(name, float(value), at, 0, **of_model) for name, value in metrics.items()])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in (dict(tags) | {Tags.JUDGED: "true"}).items()])


def record_end(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a promotion's run, and close it as FINISHED."""
    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    close_run(store.client, run_id, "FINISHED")


def close_if_open(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Do what `record_end` does, unless the run is closed as FINISHED already."""
    if store.client.get_run(run_id).info.status != "FINISHED":
        record_end(store, run_id, tags)


def abandon(store: Store, run_id: str) -> None:
    """Close the run of an interrupted promotion as KILLED if MLflow can be reached. The same promotion can resume it."""
    with contextlib.suppress(Exception):
        close_run(store.client, run_id, "KILLED")


def _find_run(store: Store, run_id: str) -> Run | None:
    try:
        return store.client.get_run(run_id)
    except MlflowException:
        return None
