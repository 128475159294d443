"""How a study is recorded in MLflow: opened once, a run for each training, closed with its plots and its best trial."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from pneumo import __version__
from pneumo.console.command import describe_error
from pneumo.search.comparison import compare_with_baseline
from pneumo.search.description import TOP, describe_study, describe_trial, severity_counts
from pneumo.search.loop import Ending, Training
from pneumo.search.retention import removable_models
from pneumo.search.tables import study_tables
from pneumo.spec.best import baseline_trial, best_first
from pneumo.spec.candidate import SKIP_REASONS, SkipReason
from pneumo.spec.comparison import Comparison
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Artifacts, Metrics, Params, Tags
from pneumo.spec.result import PARTS, State, Trial, TrialResult
from pneumo.spec.run import End, RecordedRun
from pneumo.spec.selection import Confirmation
from pneumo.spec.standing import Standing
from pneumo.spec.wording import describe_gain
from pneumo.tracking.operations import LogBatch, RemoveModel
from pneumo.training.checkpoint_folder import CheckpointFolder, checkpoints_of
from pneumo.training.task import TrialTask

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.sender import Sender
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import DatasetPart

STATES = ("complete", "pruned", "failed")

MOST_UNDRAWN = 4
"""Trials whose plots the driver has still to draw beyond which workers draw their own. The driver draws about one a second,
and runs are closed after their plots."""


@dataclass(frozen=True)
class Sharing:
    """How a search shares its study.

    Attributes:
        is_alone: Whether no other search was at work on the study when this one opened its record.
        elapsed: Seconds for which searches had been at work on it then.
    """

    is_alone: bool
    elapsed: float


class StudyRecorder:
    """A `Recorder`: the study's run in MLflow and the runs of its trainings.

    A run is known by its id, or by its key in the outbox if MLflow did not make it at once.

    Args:
        store: The MLflow store.
        outbox: Takes all writes.
        sender: Sends the outbox.
        experiment: The study's experiment.
        data: Its pictures.
        engine: Knows the study's id and its finished trials.
        findings: What is known to be wrong with the pictures.
        sharing: How this search shares the study with others; None if it has it for itself.

    Raises:
        RequestError: The MLflow experiment of this name was deleted.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sender: Sender,
        experiment: Experiment,
        data: Prepared,
        engine: Engine,
        findings: Sequence[Finding],
        sharing: Sharing | None = None,
    ) -> None:
        from pneumo.tracking import study, views

        finished_trials = engine.trials()
        self._mlflow, self._experiment, self._data, self._findings = study, experiment, data, findings
        self._store, self._outbox, self._sender, self._engine = store, outbox, sender, engine
        self._run_page, self._sharing = views.run_page_address, sharing
        self._datasets = [self._dataset(part) for part in PARTS]
        self.checkpoints = CheckpointFolder(checkpoints_of(experiment, engine.id), finished_trials)
        self._under_way: dict[str, Training] = {}
        self._run_ids: dict[str, str] = {}  # ids by key, of runs that MLflow has made
        search, self._experiment_yaml = experiment.search, experiment.to_yaml()
        self._standing = Standing(experiment, max(TOP, search.keep.best if search.keep else 0))
        self._run = study.open_study(
            store,
            outbox,
            name=experiment.name,
            engine=search.engine,
            algorithm=search.algorithm,
            version=__version__,
            objectives=search.objectives,
            searched=[dimension.name for dimension in experiment.space.searched],
            conditional=[dimension.name for dimension in experiment.space.searched if dimension.when],
            experiment_yaml=self._experiment_yaml,
            description=describe_study(experiment, data, findings, finished_trials, skipped=engine.skipped()),
            extra_tags=self._study_tags(),
        )
        audit = json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=1)
        outbox.append_files(self._run.run_id, {Artifacts.AUDIT: audit})
        self._confirmations: list[RecordedRun] = []
        self._runs_without_model: set[str] = set()
        self._own_runs: set[str] = set()
        if sharing is None or sharing.is_alone:
            self._take_over_runs(finished_trials)

    def begin(self, training: Training) -> str:
        candidate, is_trial = training.candidate, training.seed is None
        resumed = is_trial and candidate.resume_from is not None
        key = self._mlflow.start_trial(
            self._run,
            candidate.number,
            candidate.hyperparameters,
            self._seed(training),
            self._datasets,
            self._experiment_yaml,
            "trial" if is_trial else "confirm",
            {Tags.RESUMED_FROM: str(candidate.resume_from)} if resumed else None,
            close_earlier=is_trial and self._sharing is not None,
        )
        run_id = self._sender.run_id(key)
        self._own_runs.add(run_id)
        self._under_way[run_id] = training
        return run_id

    def task(self, training: Training, run_id: str) -> TrialTask:
        candidate = training.candidate
        return TrialTask(
            self._experiment.name,
            candidate,
            run_id,
            self._outbox,
            self._experiment.search.objectives,
            self._seed(training),
            self._data,
            continue_from=self.checkpoints.continued_path(candidate),
            checkpoint_path=self.checkpoints.own_path(candidate, training.seed),
            stress=self._experiment.search.stress,
            passes=self._experiment.prediction_passes,
            draws=self._outbox.has_more_to_draw_than(MOST_UNDRAWN),
        )

    def end(self, run_id: str, state: End, error: str | None = None, output: str = "") -> None:
        if output.strip():
            self._outbox.append_files(run_id, {Artifacts.OUTPUT: output})
        self._mlflow.end_trial(self._run, run_id, state, error)
        training = self._under_way.pop(run_id)
        if state == "killed":
            return
        self.checkpoints.delete_finished(training.candidate, state, training.seed)
        if state == "pruned":
            self._runs_without_model.add(run_id)
        trials = self._engine.trials()
        if self._experiment.search.keep:
            self._remove_models(trials)
        if training.seed is None:
            self._describe(trials, training.candidate.number)

    def is_recorded(self, run_id: str) -> bool:
        """Return whether a training may count as finished.

        If other searches share the study, MLflow has to have what the training wrote: nobody else could send it after a kill.
        While MLflow is away, the outbox has it.
        """
        return self._sharing is None or self._sender.outage is not None or self._outbox.has_arrived(run_id)

    def take_over(self, finished_trials: Sequence[Trial]) -> None:
        """Take over the whole record of a study that searches have shared, as the last one of them."""
        self._sharing = None
        self._take_over_runs(finished_trials)

    def confirmations(self) -> list[RecordedRun]:
        """Return the runs of the complete confirmations, by the number of their trial."""
        runs = [replace(run, run_id=self._known_id(run.run_id)) for run in self._confirmations]
        return sorted(runs, key=lambda run: run.number)

    def add_confirmation(self, training: Training, result: TrialResult) -> None:
        """Remember a complete confirmation. MLflow, which will hold its run, may be away."""
        number, parameters = training.candidate.number, {Params.SEED: str(training.seed)}
        run = RecordedRun(
            result.run_id,
            "FINISHED",
            parameters=parameters,
            metrics=dict(result.metrics),
            tags={Tags.TRIAL: str(number), Tags.STATE: "complete"},
        )
        self._confirmations.append(run)

    def close(
        self,
        finished_trials: Sequence[Trial],
        ending: Ending,
        confirmed: Sequence[Confirmation],
        skipped: Mapping[SkipReason, int],
    ) -> None:
        """Write the study's plots, tables and metrics, and close its run.

        Call it after all other writes have arrived, since the tables name the runs by their ids.

        Args:
            finished_trials: The study's finished trials.
            ending: Why the search ended.
            confirmed: The confirmed trials, best first. They decide which trial is the best.
            skipped: How many proposals were not trained, by reason.
        """
        self._remove_models(finished_trials)
        trials = [_with_run_id(trial, self._known_id(trial.result.run_id)) for trial in finished_trials]
        best = best_first(trials, self._experiment, confirmed)
        comparison = self._compare(trials, best[0]) if best else None
        if best:
            self._describe_best(best[0], trials, comparison)
        metrics: dict[str, float] = {Metrics.trials(s): sum(t.result.state == s for t in trials) for s in STATES}
        if best:
            metrics |= {Metrics.BEST_TRIAL: best[0].number, Metrics.BEST_VALUE: best[0].result.value or 0.0}
        if confirmed:
            interval = {"mean": confirmed[0].mean, "low": confirmed[0].low, "high": confirmed[0].high}
            metrics |= {Metrics.confirmed(name): value for name, value in interval.items() if value is not None}
        metrics |= {Metrics.skipped(reason): skipped.get(reason, 0) for reason in SKIP_REASONS}
        metrics[Metrics.PICTURES_UNREADABLE] = len(self._data.unreadable)
        self._mlflow.end_study(
            self._run,
            "KILLED" if ending.interrupted else "FINISHED" if best else "FAILED",
            metrics=metrics,
            artifacts=study_tables(self._experiment, trials, self.confirmations() if confirmed else ())
            | self._report(trials, metrics, ending.reason),
            description=self._description(trials, confirmed, skipped, comparison),
            best_run_id=best[0].result.run_id if best else None,
            reason=ending.reason,
        )

    def abandon(self, *, wait: bool = True) -> None:
        """Close the study's run as killed, after an error or while MLflow is away.

        Without `wait`, MLflow may hear of it only when the study is resumed.
        """
        with contextlib.suppress(Exception):
            self._mlflow.end_study(self._run, "KILLED", metrics={}, artifacts={})
            if wait:
                self._sender.flush(0, interrupted=lambda: True)

    def _take_over_runs(self, finished_trials: Sequence[Trial]) -> None:
        """Close what other processes have left RUNNING, and look up what else is recorded. No other search may be at work."""
        from pneumo.tracking import models

        ends = {trial.result.run_id: (trial.result.state, trial.result.error) for trial in finished_trials}
        self._mlflow.close_left_over(self._run, ends)
        self._confirmations = self._mlflow.confirmations(self._store, self._experiment.name)
        stored_models = models.logged_models(self._store, self._experiment.name) if self._experiment.search.keep else {}
        run_ids = (trial.result.run_id for trial in finished_trials)
        self._runs_without_model = {run_id for run_id in run_ids if self._outbox.run_id(run_id) not in stored_models}

    def _describe(self, finished_trials: Sequence[Trial], number: int) -> None:
        """Append the descriptions of the trial that has ended, and of the study with it."""
        self._standing.update(finished_trials)
        for trial in finished_trials:
            if trial.number == number:
                self._note(self._known_id(trial.result.run_id), describe_trial(trial, self._experiment))
        shown = [_with_run_id(trial, self._known_id(trial.result.run_id)) for trial in self._standing.leading]
        description = self._description(shown, (), self._engine.skipped(), states=self._standing.states)
        self._note(self._run.run_id, description)

    def _describe_best(self, best: Trial, trials: Sequence[Trial], comparison: Comparison | None) -> None:
        """Append the description of the best trial, and that of the one that was the best before, if it is another."""
        for trial in trials:
            if trial.result.run_id == self._run.best_run and trial.number != best.number:
                self._note(trial.result.run_id, describe_trial(trial, self._experiment))
        baseline = baseline_trial(trials, self._experiment)
        gain = describe_gain(best, baseline, self._experiment.search.objectives[0], comparison) if baseline else None
        self._note(best.result.run_id, describe_trial(best, self._experiment, is_best=True, gain=gain))

    def _compare(self, trials: Sequence[Trial], best: Trial) -> Comparison | None:
        baseline, objective = baseline_trial(trials, self._experiment), self._experiment.search.objectives[0]
        if baseline is None:
            return None
        return compare_with_baseline(self._store, best, baseline, objective, self._data.classes)

    def _description(
        self,
        trials: Sequence[Trial],
        confirmed: Sequence[Confirmation],
        skipped: Mapping[SkipReason, int],
        comparison: Comparison | None = None,
        states: Counter[State] | None = None,
    ) -> str:
        return describe_study(
            self._experiment,
            self._data,
            self._findings,
            trials,
            confirmed,
            skipped,
            run_page=lambda run_id: self._run_page(self._run.experiment_id, run_id),
            comparison=comparison,
            states=states,
        )

    def _note(self, run_id: str, description: str) -> None:
        self._outbox.append(run_id, LogBatch(tags={Tags.NOTE: description}))

    def _seed(self, training: Training) -> int:
        """Return the seed of a training.

        A trial's is the study's plus its number. A trial that continues another has the seed of the first one.
        """
        if training.seed is not None:
            return training.seed
        return self._experiment.search.seed + self.checkpoints.first_trial(training.candidate)

    def _known_id(self, run: str) -> str:
        if (run_id := self._run_ids.get(run) or self._outbox.run_id(run)) is None:
            return run
        self._run_ids[run] = run_id
        return run_id

    def _study_tags(self) -> dict[str, str]:
        tags = {Tags.data(part): self._data.digest(part) for part in PARTS} | {
            Tags.DATA_TEST: self._data.test,
            Tags.STUDY_ID: self._engine.id,
            Tags.PRUNER: self._experiment.search.pruner,
            Tags.DATA: self._data.kind,
            Tags.DATA_PATIENTS: self._data.patients_known,
            Tags.AUDIT: severity_counts(self._findings),
            Tags.SEARCH_STARTED: f"{time.time() - (self._sharing.elapsed if self._sharing else 0.0):.3f}",
        }
        if reason := self._experiment.data.allow_leaks:
            tags[Tags.ALLOW_LEAKS] = reason
        return tags

    def _dataset(self, part: Literal["training", "validation"]) -> DatasetPart:
        counts = [count for count in self._data.counts if count.part == part]
        profile = {"num_rows": sum(c.pictures for c in counts), "patients": sum(c.patients for c in counts)}
        profile |= {self._data.classes[c.label]: c.pictures for c in counts}
        path = self._experiment.data.path or self._data.description
        name = f"{self._experiment.data.source} {part}"
        return self._mlflow.DatasetPart(part, name, self._data.digest(part), path, profile)

    def _remove_models(self, finished_trials: Sequence[Trial]) -> None:
        """Remove models as `search.keep` says. Those of other searches that share the study are left to these."""
        confirmed = [run.number for run in self._confirmations]
        for run_id, reason in removable_models(self._experiment, finished_trials, confirmed).items():
            is_mine = self._sharing is None or run_id in self._own_runs
            if is_mine and run_id not in self._runs_without_model:
                self._outbox.append(run_id, RemoveModel(reason))
                self._runs_without_model.add(run_id)

    def _report(self, trials: Sequence[Trial], metrics: Mapping[str, float], reason: str) -> dict[str, str | bytes]:
        """Return the report by its path in the study's run. Without it, the study is complete all the same.

        Args:
            trials: The finished trials.
            metrics: Metrics that the study's run is about to get.
            reason: Why the search ended.
        """
        from pneumo.evidence.report.page import study_report
        from pneumo.tracking.store import ERRORS
        from pneumo.tracking.study_record import read_study_record

        if not trials:
            return {}
        name = self._experiment.name
        try:
            record = read_study_record(self._run.store, name, trials)
        except (*ERRORS, RequestError) as error:
            print(
                f"pneumo.search: {Artifacts.REPORT} could not be made, because MLflow's records could not be read: "
                f"{describe_error(error)}; python -m pneumo.report {name} makes it",
                file=sys.stderr,
            )
            return {}
        run = replace(
            record.run, metrics={**record.run.metrics, **metrics}, tags={**record.run.tags, Tags.ENDED: reason}
        )
        return {Artifacts.REPORT: study_report(replace(record, run=run))}


def _with_run_id(trial: Trial, run_id: str) -> Trial:
    return replace(trial, result=replace(trial.result, run_id=run_id))
