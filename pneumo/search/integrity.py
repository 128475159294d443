"""Whether the record of a study is whole: what its engine keeps held against what MLflow has.

`check` reads both; `faults` compares plain values. Nothing is written anywhere.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment, setting_changes
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import Trial
from pneumo.tracking.outbox import KEY, OUTBOXES, Outbox
from pneumo.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from pneumo.engines.stored import StoredStudy
    from pneumo.tracking.inventory import Inventory, RunEntry
    from pneumo.tracking.store import Store

STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
"""The MLflow status that follows from how a trial ended."""

PLOTS = ("calibration", "confusion_matrix", "learning_curves", "mistakes", "precision_recall", "roc")
ARTIFACTS = frozenset({"history.csv", "predictions.csv", "experiment.yaml", *(f"plots/{name}.png" for name in PLOTS)})
"""Of a trial that was trained to its end, or pruned."""

JUDGED = frozenset({"gate.json", "card.md"})
"""Artifacts of a finished promotion."""

MODEL_FILES = frozenset({"MLmodel", "data/model.keras"})

_SHORT = 8  # letters of a run's id


@dataclass(frozen=True)
class IntegrityReport:
    """What was found: a line each. `notes` are no faults: what a search that is at work has not finished yet."""

    name: str
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    trials: int
    runs: int

    @property
    def said(self) -> str:
        count = f"{self.trials} trial{'' if self.trials == 1 else 's'}, {self.runs} run{'' if self.runs == 1 else 's'}"
        found = f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'}" if self.faults else "whole"
        return f"Study {self.name}: {count}, {found}."


def check_study(store: Store, name: str, storage: str) -> IntegrityReport:
    """Whether the study's record is whole. A search may be at work on it meanwhile.

    Raises `RequestError` where there is no such study, or where one of the two cannot be read.
    """
    from pneumo.engines.engine_table import stored_studies
    from pneumo.engines.study_lock import lock_owner
    from pneumo.tracking.inventory import inventory

    by, before = lock_owner(name, storage), stored_studies(name, storage)
    waiting = Outbox(OUTBOXES / name).waiting()
    found = inventory(store, name)
    by, after = by or lock_owner(name, storage), stored_studies(name, storage)
    if not after and (found is None or not found.studies):
        raise RequestError(
            f"--check {name}: there is no such study in {store.shown} or in this storage; give the --storage and the "
            "MLFLOW_TRACKING_URI that it was searched with"
        )
    studies = found.studies if found else ()
    identity = studies[0].tags.get("pneumo.id") if studies else None
    engine = next((one for one in after if identity in (None, one.id)), None)
    if engine is None:
        fault = (
            f"MLflow's run {studies[0].run_id} is of a study whose trials are not in this storage; give its --storage"
        )
        return IntegrityReport(name, (fault,), (), 0, _runs(found))
    earlier = next((one for one in before if one.id == engine.id), None)
    seen = {trial.number for trial in earlier.trials} if earlier else set()
    told = [trial for trial in engine.trials if trial.number in seen]
    return compare_records(name, engine, told, found, by, waiting)


def compare_records(
    name: str,
    engine: StoredStudy,
    told: Sequence[Trial],
    found: Inventory | None,
    by: str | None = None,
    waiting: Mapping[str, int] | None = None,
) -> IntegrityReport:
    """Compares what the engine keeps with what MLflow has.

    `told` are the trials that were told before MLflow was read. `by` is who holds the study at this moment, None where
    no search is at work on it. `waiting` has the runs, by id or key, of which writes had not arrived before MLflow was read,
    and how many: of these nothing is said but that.
    """
    if found is None or not found.studies:
        faults = [f"MLflow has no run of the study, and its engine has {len(told)} trials"] if told else []
        return IntegrityReport(
            name, tuple(faults), () if told else ("no trial was begun yet",), len(told), _runs(found)
        )
    experiment = parse_experiment(engine.experiment, f"study {name}: the experiment in its storage")
    waiting = waiting or {}
    keys = {run.tags[KEY]: run.run_id for run in found.trials if KEY in run.tags}
    told = [_by_id(trial, keys) for trial in told]
    arrived = [trial for trial in told if trial.result.run_id not in waiting]
    not_sent = [f"writes not sent to MLflow yet: {sum(waiting.values()):,} ({OUTBOXES / name})"] if waiting else []
    running = [
        f"{_named(run)} is RUNNING"
        for run in (*found.studies, *found.trials, *found.confirmations)
        if run.status == "RUNNING" and run.run_id not in waiting
    ]
    faults = [
        *_numbering(engine),
        *_parents(found),
        *([] if by else [f"{one}, and no search is at work on the study" for one in running]),
        *([] if by else [f"{one}; the same search again sends them" for one in not_sent]),
        *_trials(experiment, engine, arrived, found, by is not None),
        *_confirmations(found),
        *_ends(found),
        *_study(experiment, arrived, found, settled=len(arrived) == len(engine.trials)),
        *_promotions(found),
    ]
    notes = [f"{one}: a search is at work on it ({by})" for one in [*running, *not_sent]] if by else []
    notes += [
        f"{_named(run)} is RUNNING: a promotion is under way, or was killed; the same command finishes it"
        for run in found.promotions
        if run.status == "RUNNING"
    ]
    return IntegrityReport(name, tuple(faults), tuple(notes), len(told), _runs(found))


def _by_id(trial: Trial, keys: Mapping[str, str]) -> Trial:
    """The trial with the id of its run, where that was begun under a key (see `tracking.outbox`)."""
    return replace(trial, result=replace(trial.result, run_id=keys.get(trial.result.run_id, trial.result.run_id)))


def _runs(found: Inventory | None) -> int:
    if found is None:
        return 0
    return len(found.studies) + len(found.trials) + len(found.confirmations) + len(found.promotions)


def _named(run: RunEntry) -> str:
    number = "" if run.number is None else f" {run.number}"
    return f"{'study' if run.role == 'study' else f'{run.role}{number}'}: run {run.run_id[:_SHORT]}"


def _numbering(engine: StoredStudy) -> Iterator[str]:
    """The engine's numbers, from 0 without holes or doubles, each finished one with its result."""
    for number, times in sorted(Counter(engine.numbers).items()):
        if times > 1:
            yield f"trial {number}: the engine has this number {times} times"
    holes = sorted(set(range(max(engine.numbers, default=-1) + 1)) - set(engine.numbers))
    if holes:
        yield f"the engine's numbering has holes: {', '.join(map(str, holes))}"
    for number in engine.lost:
        yield f"trial {number}: the engine holds it for finished and has no result of it"


def _parents(found: Inventory) -> Iterator[str]:
    if len(found.studies) > 1:
        yield f"the study has {len(found.studies)} runs of its own: {', '.join(run.run_id for run in found.studies)}"
    for run in (*found.trials, *found.confirmations, *found.promotions):
        if run.tags.get("mlflow.parentRunId") != found.studies[0].run_id:
            yield f"{_named(run)} is not under the study's run"


def _trials(
    experiment: Experiment, engine: StoredStudy, told: Sequence[Trial], found: Inventory, held: bool
) -> Iterator[str]:
    by_number: dict[int | None, list[RunEntry]] = {}
    for run in found.trials:
        by_number.setdefault(run.number, []).append(run)
    chains = Checkpoints(Path("mlruns"), engine.trials)
    for trial in told:
        runs = by_number.get(trial.number, [])
        live = [run for run in runs if run.status != "KILLED"]
        if len(live) != 1:
            yield f"trial {trial.number}: {len(live)} runs that are not KILLED, where one is right"
        own = next((one for one in live if one.run_id == trial.result.run_id), None)
        if own is None:
            yield f"trial {trial.number}: its run {trial.result.run_id[:_SHORT]} is not in MLflow, or KILLED"
            continue
        seed = experiment.search.seed + chains.first(trial.candidate)
        yield from (f"{_named(own)}: {fault}" for fault in _trial(experiment, trial, seed, own, held))
    known = {trial.number for trial in told}
    late = {trial.number for trial in engine.trials} - known
    for number, runs in by_number.items():
        if number not in engine.numbers:
            yield f"{_named(runs[0])} is of a trial that the engine does not know"
        elif number not in known and number not in late:
            done = [run for run in runs if run.status not in ("KILLED", "RUNNING")]
            yield from (f"{_named(run)} is {run.status}, and the engine was not told of it" for run in done)
    for run in found.trials:
        if run.status == "KILLED" and run.state:
            yield f"{_named(run)} is KILLED, and its state is {run.state}"


def _trial(experiment: Experiment, trial: Trial, seed: int, run: RunEntry, held: bool) -> Iterator[str]:
    """What is wrong with the run of a trial that was told; `held`: it may be that it is not closed yet."""
    result = trial.result
    if not (held and run.status == "RUNNING"):
        wanted = {"status": STATUS[result.state], "state": result.state, "error": result.error or ""}
        has = {"status": run.status, "state": run.state or "", "error": run.tags.get("pneumo.error", "")}
        yield from _differences(wanted, has)
    told = {name: v if isinstance(v, str) else json.dumps(v) for name, v in trial.candidate.hyperparameters.items()}
    yield from _differences(told | {"seed": str(seed)}, run.parameters)
    figures = dict(result.metrics)
    if result.value is not None:
        figures[objective_metric(experiment.search.objectives[0])] = result.value
    for name, value in figures.items():
        if not _equal(value, run.metrics.get(name)):
            yield f"{name} is {run.metrics.get(name)}, and {value} in the engine"
    if result.state != "failed":
        yield from _trained(run, trial.candidate.epochs if result.state == "complete" else None)
    if result.state == "complete":
        yield from _model(run)
    elif result.state == "pruned" and run.models:
        yield "has a model, though it was pruned"
    if result.state == "failed":
        yield from _steps(run)


def _trained(run: RunEntry, epochs: int | None) -> Iterator[str]:
    """What is wrong with the learning curves and the artifacts of a run that was not ended before its end."""
    yield from _steps(run)
    counts = {len(steps) for steps in run.steps.values()}
    trained = max(counts, default=0)
    if len(counts) > 1:
        yield f"its learning curves are of different lengths: {', '.join(map(str, sorted(counts)))}"
    if trained == 0:
        yield "has no learning curve"
    if epochs is not None and trained not in (0, epochs):
        yield f"has {trained} epochs, and was trained for {epochs}"
    if trained and not 1 <= run.metrics.get("best_epoch", 0) <= trained:
        yield f"best_epoch is {run.metrics.get('best_epoch')}, and it has {trained} epochs"
    if missing := sorted(ARTIFACTS - run.artifacts):
        yield f"lacks {', '.join(missing)}"


def _steps(run: RunEntry) -> Iterator[str]:
    for name, steps in run.steps.items():
        if list(steps) != list(range(1, len(steps) + 1)):
            shown = ", ".join(map(str, steps[:20])) + (", ..." if len(steps) > 20 else "")
            yield f"{name} has the steps {shown}, where 1, 2, 3, ... is right"


def _model(run: RunEntry) -> Iterator[str]:
    if run.tags.get("pneumo.model_removed"):
        return  # by `search.keep`; a kill may have left some of it, which the next end of a trial removes
    if len(run.models) != 1:
        yield f"has {len(run.models)} models, where one is right"
    for model in run.models:
        if model.status != "READY":
            yield f"its model {model.model_id} is {model.status}"
        elif missing := sorted(MODEL_FILES - model.files):
            yield f"its model {model.model_id} lacks {', '.join(missing)}"


def _confirmations(found: Inventory) -> Iterator[str]:
    done = [run for run in found.confirmations if run.state == "complete"]
    for (number, seed), times in sorted(Counter((r.number, r.parameters.get("seed")) for r in done).items(), key=str):
        if times > 1:
            yield f"trial {number}: trained again with the seed {seed} {times} times"
    for run in done:
        if run.status not in ("FINISHED", "RUNNING"):
            yield f"{_named(run)} is {run.status}, and its state is complete"
        epochs = run.parameters.get("epochs", "")
        yield from (f"{_named(run)}: {fault}" for fault in _trained(run, int(epochs) if epochs.isdigit() else None))
        yield from (f"{_named(run)}: {fault}" for fault in _model(run))


def _ends(found: Inventory) -> Iterator[str]:
    for run in (*found.studies, *found.trials, *found.confirmations, *found.promotions):
        if run.status != "RUNNING" and run.ended is None:
            yield f"{_named(run)} is {run.status} and has no end"
        elif run.status != "RUNNING" and run.ended is not None and run.ended < run.began:
            yield f"{_named(run)} ended before it began"


def _study(experiment: Experiment, told: Sequence[Trial], found: Inventory, settled: bool) -> Iterator[str]:
    """What is wrong with the study's run. Its figures are looked at where it was closed after the last of the trials."""
    from pneumo.spec.best import best_first, rank_confirmed_trials
    from pneumo.spec.run import TrialRun

    run = found.studies[0]
    if found.experiment_yaml is None:
        if told:
            yield "study: its run has no experiment.yaml"
        return
    before, now = yaml.safe_load(experiment.to_yaml()), yaml.safe_load(found.experiment_yaml)
    yield from (
        f"study: experiment.yaml differs from the engine's: {change}" for change in setting_changes(before, now)
    )
    if run.status not in ("FINISHED", "FAILED") or not settled:
        return  # broken off or at work: what it says is of its last end
    asked = parse_experiment(found.experiment_yaml, "study: experiment.yaml")
    runs = [
        TrialRun(one.run_id, one.number, one.status, one.state, one.parameters, one.metrics, one.tags)
        for one in found.confirmations
        if one.state == "complete" and one.number is not None
    ]
    best = next(iter(best_first(told, asked, rank_confirmed_trials(told, asked, runs))), None)
    states: Counter[str] = Counter(trial.result.state for trial in told)
    wanted: dict[str, float] = {f"trials_{state}": states[state] for state in ("complete", "pruned", "failed")}
    if best:
        wanted |= {"best_trial": best.number, "best_value": best.result.value or 0.0}
        if run.tags.get("pneumo.best_run") != best.result.run_id:
            yield f"study: pneumo.best_run is {run.tags.get('pneumo.best_run')}, not {best.result.run_id}"
    for name, value in wanted.items():
        if not _equal(value, run.metrics.get(name)):
            yield f"study: {name} is {run.metrics.get(name)}, where {value} is right"
    if told:
        yield from _table(told, found.trials_csv)


def _table(told: Sequence[Trial], text: str | None) -> Iterator[str]:
    if text is None:
        yield "study: its run has no trials.csv"
        return
    rows = [(row["trial"], row["state"], row["run_id"]) for row in csv.DictReader(text.splitlines())]
    if rows != [(str(trial.number), trial.result.state, trial.result.run_id) for trial in told]:
        yield f"study: trials.csv has {len(rows)} rows that are not those of the engine's {len(told)} trials"


def _promotions(found: Inventory) -> Iterator[str]:
    finished = {run.run_id: run for run in found.promotions if run.status == "FINISHED"}
    judged = {run.run_id for run in found.promotions if run.tags.get("pneumo.judged") == "true"}
    for run in finished.values():
        if run.run_id not in judged:
            yield f"{_named(run)} is FINISHED, and the test pictures were not judged"
        if not any(name.startswith("test_") for name in run.metrics):
            yield f"{_named(run)} is FINISHED and has no figure of the test pictures"
        if missing := sorted(JUDGED - run.artifacts):
            yield f"{_named(run)} lacks {', '.join(missing)}"
    for one in found.aliases:
        what = f"model {one.model}: version {one.version}, which is {one.alias},"
        if not any(name.startswith("test_") for name in one.tags):
            yield f"{what} has no figure of the test pictures"
        if one.tags.get("pneumo.promotion") not in judged:
            yield f"{what} is of no promotion that was judged"
    counted = int(found.studies[0].metrics.get("test_openings", 0))
    if counted != len(found.openings) or list(found.openings) != list(range(1, counted + 1)):
        listed = ", ".join(map(str, found.openings)) or "none"
        yield f"study: test_openings is {counted}, and the openings listed are {listed}"


def _differences(wanted: Mapping[str, str], has: Mapping[str, str]) -> Iterable[str]:
    for name in sorted({*wanted, *has}):
        if wanted.get(name) != has.get(name):
            yield f"{name} is {has.get(name)}, and {wanted.get(name)} in the engine"


def _equal(wanted: float, has: float | None) -> bool:
    if has is None:
        return False
    # MLflow keeps infinity as the largest number there is.
    endless = math.isinf(wanted) and abs(has) > 1e308 and wanted * has > 0
    return wanted == has or endless or (math.isnan(wanted) and math.isnan(has))
