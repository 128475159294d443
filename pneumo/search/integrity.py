"""Check whether the record of a study is complete: compare what its engine stores with what MLflow stores.

`check_study` reads both, `compare_records` compares plain values. Nothing is written anywhere.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pneumo.search.run_faults import confirmation_faults, number_of, promotion_faults, same_value, trial_faults
from pneumo.spec.best import best_first, rank_confirmed_trials
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment, setting_changes
from pneumo.spec.names import Metrics, Params, Tags
from pneumo.spec.result import Trial
from pneumo.spec.wording import count_of
from pneumo.tracking.outbox import OUTBOXES, Outbox
from pneumo.training.checkpoint_folder import CheckpointFolder

if TYPE_CHECKING:
    from pneumo.engines.stored import StoredStudy
    from pneumo.tracking.inventory import Inventory, RunContents
    from pneumo.tracking.store import Store

_SHORT = 8
"""Number of letters of a run's id that a fault shows."""


@dataclass(frozen=True)
class IntegrityReport:
    """The faults of a study's record, a line each.

    Attributes:
        name: The study's name.
        faults: What is missing or contradictory.
        notes: What a running search or promotion has not finished yet; not faults.
        trials: Number of finished trials.
        runs: Number of runs.
    """

    name: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    trials: int
    runs: int

    @property
    def summary(self) -> str:
        """One line with the counts."""
        count = f"{self.trials} trial{'' if self.trials == 1 else 's'}, {self.runs} run{'' if self.runs == 1 else 's'}"
        verdict = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}" if self.faults else "no faults"
        return f"Study {self.name}: {count}, {verdict}."


def check_study(store: Store, name: str, storage: str) -> IntegrityReport:
    """Check whether the study's record is complete. A search may be running on the study meanwhile.

    Raises:
        RequestError: There is no such study, or one of the two records cannot be read.
    """
    from pneumo.engines.engine_table import stored_studies
    from pneumo.engines.study_lock import lock_owner
    from pneumo.tracking.find import explain_missing
    from pneumo.tracking.inventory import read_inventory

    # A running search writes while this reads. Trials that finish after MLflow was read are not compared.
    owner, before = lock_owner(name, storage), stored_studies(name, storage)
    waiting = Outbox(OUTBOXES / name).waiting()
    study_id = before[0].id if len(before) == 1 else None
    inventory = read_inventory(store, name, study_id)
    owner, after = owner or lock_owner(name, storage), stored_studies(name, storage)
    if inventory is None or not inventory.studies:
        explain_missing(store, name, study_id)
    if not after and (inventory is None or not inventory.studies):
        raise RequestError(
            f"--check {name}: there is no such study in {store.display_uri} or in this storage; give the --storage and the "
            "MLFLOW_TRACKING_URI that it was searched with"
        )
    study = inventory.studies[0].run if inventory and inventory.studies else None
    study_id = study.tags.get(Tags.STUDY_ID) if study else None
    engine = next((stored for stored in after if study_id in (None, stored.id)), None)
    if engine is None:
        assert study is not None
        fault = f"MLflow's run {study.run_id} is of a study whose trials are not in this storage; give its --storage"
        return IntegrityReport(name, (fault,), (), 0, _count_runs(inventory))
    earlier = next((stored for stored in before if stored.id == engine.id), None)
    numbers = {trial.number for trial in earlier.trials} if earlier else set()
    finished = [trial for trial in engine.trials if trial.number in numbers]
    return compare_records(name, engine, finished, inventory, owner, waiting)


def compare_records(
    name: str,
    engine: StoredStudy,
    finished: Sequence[Trial],
    inventory: Inventory | None,
    owner: str | None = None,
    waiting: Mapping[str, int] | None = None,
) -> IntegrityReport:
    """Compare what the engine stores with what MLflow stores.

    Args:
        name: The study's name.
        engine: The study as its engine stores it.
        finished: The trials that were finished before MLflow was read.
        inventory: What MLflow stores; None if it has no such study.
        owner: The process that holds the study's lock; None if no search is running.
        waiting: Number of writes in the outbox before MLflow was read, by the id or the key of their run. Nothing else
            is reported about these runs.
    """
    if inventory is None or not inventory.studies:
        trials = count_of(len(finished), "trial")
        faults = [f"MLflow has no run of the study, and its engine has {trials}"] if finished else []
        notes = [] if finished else ["no trial was begun yet"]
        return IntegrityReport(name, tuple(faults), tuple(notes), len(finished), _count_runs(inventory))
    experiment = parse_experiment(engine.experiment, f"study {name}: the experiment in its storage")
    waiting = waiting or {}
    ids = {
        contents.run.tags[Tags.KEY]: contents.run.run_id
        for contents in inventory.trials
        if Tags.KEY in contents.run.tags
    }
    finished = [_with_run_id(trial, ids) for trial in finished]
    arrived = [trial for trial in finished if trial.result.run_id not in waiting]
    not_sent = [f"writes not sent to MLflow yet: {sum(waiting.values()):,} ({OUTBOXES / name})"] if waiting else []
    running = [
        f"{_label(contents)} is RUNNING"
        for contents in (*inventory.studies, *inventory.trials, *inventory.confirmations)
        if contents.run.status == "RUNNING" and contents.run.run_id not in waiting
    ]
    faults = [*_numbering_faults(engine), *_parent_faults(inventory)]
    if owner is None:
        faults += [f"{line}, and no search is at work on the study" for line in running]
        faults += [f"{line}; the same search again sends them" for line in not_sent]
    faults += [
        *_trial_run_faults(experiment, engine, arrived, inventory, owner is not None),
        *_confirmation_run_faults(inventory),
        *_time_faults(inventory),
        *_study_run_faults(experiment, arrived, inventory, all_compared=len(arrived) == len(engine.trials)),
        *_promotion_run_faults(inventory),
    ]
    notes = [f"{line}: a search is at work on it ({owner})" for line in [*running, *not_sent]] if owner else []
    notes += [
        f"{_label(contents)} is RUNNING: a promotion is under way, or was killed; the same command finishes it"
        for contents in inventory.promotions
        if contents.run.status == "RUNNING"
    ]
    return IntegrityReport(name, tuple(faults), tuple(notes), len(finished), _count_runs(inventory))


def _with_run_id(trial: Trial, ids: Mapping[str, str]) -> Trial:
    """Return the trial with its run's id if it has the run's key instead (see `tracking.outbox`)."""
    return replace(trial, result=replace(trial.result, run_id=ids.get(trial.result.run_id, trial.result.run_id)))


def _count_runs(inventory: Inventory | None) -> int:
    return len(inventory.runs) if inventory else 0


def _label(contents: RunContents) -> str:
    """Return `trial 3: run 0123abcd`."""
    run, number = contents.run, number_of(contents.run)
    subject = run.role if run.role == "study" or number is None else f"{run.role} {number}"
    return f"{subject}: run {run.run_id[:_SHORT]}"


def _numbering_faults(engine: StoredStudy) -> Iterator[str]:
    """The engine must number its trials from 0 without gaps, and store a result for each finished trial."""
    for number, times in sorted(Counter(engine.numbers).items()):
        if times > 1:
            yield f"trial {number}: the engine has this number {times} times"
    missing = sorted(set(range(max(engine.numbers, default=-1) + 1)) - set(engine.numbers))
    if missing:
        yield f"the engine's numbering has gaps: {', '.join(map(str, missing))}"
    for number in engine.lost:
        yield f"trial {number}: the engine marks it as finished and has no result of it"


def _parent_faults(inventory: Inventory) -> Iterator[str]:
    first, *others = inventory.studies
    if others:
        ids = ", ".join(contents.run.run_id for contents in inventory.studies)
        yield f"the study has {len(inventory.studies)} runs of its own: {ids}"
    for contents in (*inventory.trials, *inventory.confirmations, *inventory.promotions):
        if contents.run.tags.get(Tags.PARENT) != first.run.run_id:
            yield f"{_label(contents)} is not under the study's run"


def _trial_run_faults(
    experiment: Experiment, engine: StoredStudy, finished: Sequence[Trial], inventory: Inventory, search_runs: bool
) -> Iterator[str]:
    """Each finished trial must have one run that is not KILLED, with the results that the engine stores."""
    by_number: dict[int | None, list[RunContents]] = {}
    for contents in inventory.trials:
        by_number.setdefault(number_of(contents.run), []).append(contents)
    chains = CheckpointFolder(Path("mlruns"), engine.trials)
    for trial in finished:
        live = [contents for contents in by_number.get(trial.number, []) if contents.run.status != "KILLED"]
        if len(live) != 1:
            yield f"trial {trial.number}: {len(live)} runs that are not KILLED, expected 1"
        own = next((contents for contents in live if contents.run.run_id == trial.result.run_id), None)
        if own is None:
            yield f"trial {trial.number}: its run {trial.result.run_id[:_SHORT]} is not in MLflow, or KILLED"
            continue
        seed = experiment.search.seed + chains.first_trial(trial.candidate)
        faults = trial_faults(experiment, trial, seed, own, may_run=search_runs)
        yield from (f"{_label(own)}: {fault}" for fault in faults)
    compared = {trial.number for trial in finished}
    finished_later = {trial.number for trial in engine.trials} - compared
    for number, runs in by_number.items():
        if number not in engine.numbers:
            yield f"{_label(runs[0])} is of a trial that the engine does not have"
        elif number not in compared and number not in finished_later:
            for contents in runs:
                if contents.run.status not in ("KILLED", "RUNNING"):
                    yield f"{_label(contents)} is {contents.run.status}, and the engine has no result of it"
    for contents in inventory.trials:
        if contents.run.status == "KILLED" and contents.run.state:
            yield f"{_label(contents)} is KILLED, and its state is {contents.run.state}"


def _confirmation_run_faults(inventory: Inventory) -> Iterator[str]:
    """A trial must have one finished confirmation for a seed, with everything that a trial's run has."""
    complete = [contents for contents in inventory.confirmations if contents.run.state == "complete"]
    counts = Counter((number_of(contents.run), contents.run.parameters.get(Params.SEED)) for contents in complete)
    for (number, seed), times in sorted(counts.items(), key=str):
        if times > 1:
            yield f"trial {number}: trained again with the seed {seed} {times} times"
    for contents in complete:
        if contents.run.status not in ("FINISHED", "RUNNING"):
            yield f"{_label(contents)} is {contents.run.status}, and its state is complete"
        yield from (f"{_label(contents)}: {fault}" for fault in confirmation_faults(contents))


def _time_faults(inventory: Inventory) -> Iterator[str]:
    for contents in inventory.runs:
        run = contents.run
        if run.status != "RUNNING" and run.ended is None:
            yield f"{_label(contents)} is {run.status} and has no end"
        elif run.status != "RUNNING" and run.ended is not None and run.ended < run.started:
            yield f"{_label(contents)} ended before it began"


def _study_run_faults(
    experiment: Experiment, finished: Sequence[Trial], inventory: Inventory, all_compared: bool
) -> Iterator[str]:
    """The study's run must have the engine's experiment, and after the last trial the counts, the best and the table."""
    run = inventory.studies[0].run
    if inventory.experiment_yaml is None:
        if finished:
            yield "study: its run has no experiment.yaml"
        return
    in_engine, in_mlflow = yaml.safe_load(experiment.to_yaml()), yaml.safe_load(inventory.experiment_yaml)
    for change in setting_changes(in_engine, in_mlflow):
        yield f"study: experiment.yaml differs from the engine's: {change}"
    if run.status not in ("FINISHED", "FAILED") or not all_compared:
        return  # The search was interrupted or is running: the run describes an earlier end.
    recorded_experiment = parse_experiment(inventory.experiment_yaml, "study: experiment.yaml")
    confirmations = [
        contents.run
        for contents in inventory.confirmations
        if contents.run.state == "complete" and number_of(contents.run) is not None
    ]
    confirmed = rank_confirmed_trials(finished, recorded_experiment, confirmations)
    best = next(iter(best_first(finished, recorded_experiment, confirmed)), None)
    states: Counter[str] = Counter(trial.result.state for trial in finished)
    expected: dict[str, float] = {Metrics.trials(state): states[state] for state in ("complete", "pruned", "failed")}
    if best:
        expected |= {Metrics.BEST_TRIAL: best.number, Metrics.BEST_VALUE: best.result.value or 0.0}
        if run.tags.get(Tags.BEST_RUN) != best.result.run_id:
            yield f"study: pneumo.best_run is {run.tags.get('pneumo.best_run')}, not {best.result.run_id}"
    for name, value in expected.items():
        if not same_value(value, run.metrics.get(name)):
            yield f"study: {name} is {run.metrics.get(name)}, expected {value}"
    if finished:
        yield from _table_faults(finished, inventory.trials_csv)


def _table_faults(finished: Sequence[Trial], table: str | None) -> Iterator[str]:
    if table is None:
        yield "study: its run has no trials.csv"
        return
    rows = [(row["trial"], row["state"], row["run_id"]) for row in csv.DictReader(table.splitlines())]
    if rows != [(str(trial.number), trial.result.state, trial.result.run_id) for trial in finished]:
        yield f"study: trials.csv has {len(rows)} rows that are not those of the engine's {len(finished)} trials"


def _promotion_run_faults(inventory: Inventory) -> Iterator[str]:
    """A finished promotion and every alias must have the test pictures' verdict, and each opening must be counted."""
    for contents in inventory.promotions:
        if contents.run.status == "FINISHED":
            yield from (f"{_label(contents)} {fault}" for fault in promotion_faults(contents))
    judged = {contents.run.run_id for contents in inventory.promotions if contents.run.tags.get(Tags.JUDGED) == "true"}
    for entry in inventory.aliases:
        version = f"model {entry.model}: version {entry.version}, which is {entry.alias},"
        if not any(name.startswith(Metrics.TEST) for name in entry.tags):
            yield f"{version} has no figure of the test pictures"
        if entry.tags.get(Tags.PROMOTION) not in judged:
            yield f"{version} is of no promotion that was judged"
    counted = int(inventory.studies[0].run.metrics.get(Metrics.TEST_OPENINGS, 0))
    if list(inventory.openings) != list(range(1, counted + 1)):
        listed = ", ".join(map(str, inventory.openings)) or "none"
        yield f"study: test_openings is {counted}, and the openings listed are {listed}"
