"""Promotion as MLflow records it: which study, each opening of its test pictures, a run for each promotion.

Every opening stands on the study's run, from before the first test picture is read: as a tag `pneumo.test_opening.0001` (when,
who, which run) and as the metric `test_openings`. A promotion that was interrupted and is taken up goes on in its own run
and within its own opening.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.spec.names import Metrics, Tags
from pneumo.tracking.store import Store
from pneumo.tracking.study import RecordedStudy, close_run, experiment_id, log_files, read_study, user_name

_RUN_ID_LENGTH = 32


@dataclass(frozen=True)
class PromotionRequest:
    """What a promotion is asked of: a study, and one of its runs where that was named."""

    study: str
    recorded: RecordedStudy
    run_id: str | None = None


@dataclass(frozen=True)
class Opening:
    """One opening of the sealed test pictures: `at`, in UTC, ISO 8601, `run_id` was judged; `promotion` is the run of it."""

    at: str
    who: str
    run_id: str
    promotion: str


@dataclass(frozen=True)
class PromotionRun:
    """A promotion's run. `judged`: all that the test pictures had to say is recorded in it."""

    run_id: str
    judged: bool


def find_request(store: Store, what: str | None) -> PromotionRequest:
    """The study of that name, or the one that a run belongs to, or without either the study that was begun last.

    Raises `RequestError` where there is none.
    """
    if what is None:
        what = _latest(store)
    if found := read_study(store, what):
        return PromotionRequest(what, found)
    run = _run(store, what) if len(what) == _RUN_ID_LENGTH else None
    if run is None:
        raise RequestError(f"{what}: neither a study nor a run in {store.display_uri}; there is {_known(store)}")
    role, study = run.data.tags.get(Tags.ROLE), run.data.tags.get(Tags.STUDY, "")
    if role not in ("study", "trial", "confirm") or (found := read_study(store, study)) is None:
        raise RequestError(f"{what}: a run of role {role}; wants the run of a trial or of a study")
    return PromotionRequest(study, found, None if role == "study" else what)


def openings(store: Store, study: RecordedStudy) -> list[Opening]:
    """Every opening of the study's test pictures so far, the first one first."""
    tags = store.client.get_run(study.run_id).data.tags
    return [Opening(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(Tags.TEST_OPENING)]


def elsewhere(store: Store, study: str, test: str) -> int:
    """How often other studies of this store have opened the same test pictures."""
    ids = [one.experiment_id for one in store.client.search_experiments(max_results=1000) if one.name != study]
    if not ids:
        return 0
    opened = f"tags.`{Tags.ROLE}` = 'promotion' and tags.`{Tags.DATA_TEST}` = '{test}'"
    return len(store.client.search_runs(ids, opened, max_results=1000))


def open_run(
    store: Store,
    study: str,
    of: RecordedStudy,
    *,
    key: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
) -> PromotionRun:
    """The run of the promotion that `key` tells: a new one, or the one that was begun before."""
    client, experiment = store.client, experiment_id(store, study)
    found = client.search_runs(
        [experiment], f"tags.`{Tags.PROMOTION_KEY}` = '{key}'", run_view_type=ViewType.ACTIVE_ONLY, max_results=1
    )
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return PromotionRun(found[0].info.run_id, Tags.JUDGED in found[0].data.tags)
    own = {
        Tags.ROLE: "promotion",
        Tags.STUDY: study,
        Tags.PROMOTION_KEY: key,
        Tags.PARENT: of.run_id,
        Tags.USER: user_name(),
        Tags.SOURCE_NAME: "pneumo.promote",
        Tags.SOURCE_TYPE: "LOCAL",
    }
    run_id = client.create_run(experiment, tags=own | dict(tags), run_name=name).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return PromotionRun(run_id, False)


def record_opening(store: Store, study: RecordedStudy, run_id: str, promotion: str) -> list[Opening]:
    """Puts on record that the test pictures are about to be opened, and gives every opening, this one last."""
    before = openings(store, study)
    if any(opening.promotion == promotion for opening in before):
        return before  # its process died within this opening, before anybody saw a figure
    opening = Opening(datetime.now(UTC).isoformat(timespec="seconds"), user_name(), run_id, promotion)
    now = [*before, opening]
    count = Metric(Metrics.TEST_OPENINGS, len(now), int(time.time() * 1000), len(now))
    named = RunTag(f"{Tags.TEST_OPENING}{len(now):04d}", json.dumps(asdict(opening)))
    store.client.log_batch(study.run_id, metrics=[count], tags=[named])
    return now


def record_judged(
    store: Store,
    run_id: str,
    *,
    test: str,
    source: str,
    counts: Mapping[str, int],
    metrics: Mapping[str, float],
    files: Mapping[str, str | bytes],
    tags: Mapping[str, str],
) -> None:
    """Writes what the test pictures had to say, and last that all of it is there."""
    client, now = store.client, int(time.time() * 1000)
    dataset = Dataset(
        name="test",
        digest=test,
        source_type="local",
        source=json.dumps({"uri": source}),
        profile=json.dumps(dict(counts)),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(Tags.DATASET_CONTEXT, "test")])])
    log_files(client, run_id, files)
    client.log_batch(run_id, metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in (dict(tags) | {Tags.JUDGED: "true"}).items()])


def record_end(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    """Closes a promotion's run."""
    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    close_run(store.client, run_id, "FINISHED")


def abandon(store: Store, run_id: str) -> None:
    """Closes the run of a promotion that was interrupted, if MLflow can still be reached; the next one takes it up."""
    with contextlib.suppress(Exception):
        close_run(store.client, run_id, "KILLED")


def _run(store: Store, run_id: str) -> Run | None:
    try:
        return store.client.get_run(run_id)
    except MlflowException:
        return None


def _studies(store: Store, most: int) -> list[Run]:
    ids = [one.experiment_id for one in store.client.search_experiments(max_results=1000)]
    return list(
        store.client.search_runs(
            ids, f"tags.`{Tags.ROLE}` = 'study'", max_results=most, order_by=["attributes.start_time DESC"]
        )
    )


def _latest(store: Store) -> str:
    if found := _studies(store, 1):
        return str(found[0].data.tags[Tags.STUDY])
    raise RequestError(f"{store.display_uri} has no study yet; python -m pneumo.search makes one")


def _known(store: Store) -> str:
    return ", ".join(str(run.data.tags[Tags.STUDY]) for run in _studies(store, 10)) or "no study"
