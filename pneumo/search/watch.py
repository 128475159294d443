"""`--watch`: show a study that another process searches, from its records. Nothing is written and no lock is taken."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live

from pneumo.console.command import NOTHING_FIT, OK, describe_error
from pneumo.console.display import say
from pneumo.console.trainings import StudyLine, TrainingLine, training_table
from pneumo.search.comparison import compare_with_baseline
from pneumo.search.results import show_results
from pneumo.search.screen import TRIAL_INDENT, Budget, describe_best, study_parts, trial_line
from pneumo.spec.best import rank_confirmed_trials
from pneumo.spec.candidate import Candidate
from pneumo.spec.comparison import Comparison
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment
from pneumo.spec.hyperparameters import Hyperparameters, Value
from pneumo.spec.names import Artifacts, Params, Tags
from pneumo.spec.objective import epoch_metric, epoch_objective, objective_metric
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.run import RecordedRun, parse_parameter
from pneumo.spec.wording import describe_candidate

if TYPE_CHECKING:
    from pneumo.tracking.live import LiveStudy, LiveTraining
    from pneumo.tracking.store import Store

POLL_SECONDS = 2.0
"""Seconds between two looks at the records."""

SHOWN_BEFORE = 5
"""Trials that were finished before and are shown when the watching begins."""

ENDS = {"FINISHED": "has ended", "FAILED": "has ended", "KILLED": "was interrupted"}
"""What is said of a study's run that is not running, by its status in MLflow."""


@dataclass(frozen=True)
class Watched:
    """A study at one instant.

    Attributes:
        experiment: Its experiment.
        trials: Its finished trials, in the order of their end.
        live: What MLflow knows of it.
    """

    experiment: Experiment
    trials: Sequence[Trial]
    live: LiveStudy

    @property
    def has_ended(self) -> bool:
        return self.live.run.status in ENDS

    @property
    def study_parts(self) -> list[str]:
        """What the line of the study says."""
        search, best = self.experiment.search, describe_best(self.trials, self.experiment)
        left = [] if self.has_ended else self._budget(search.timeout).describe(search.trials - len(self.trials))
        states = Counter(trial.result.state for trial in self.trials)
        return [*study_parts(states, self.experiment, best, len(self.live.running)), *left]

    @property
    def training_lines(self) -> list[TrainingLine]:
        """The lines of the trainings under way."""
        return [_training_line(training, self.experiment) for training in self.live.running]

    def _budget(self, timeout: float | None) -> Budget:
        """Return what is left of the search that is running. A study of an earlier version does not say when it began."""
        started = self.live.run.tags.get(Tags.SEARCH_STARTED)
        if started is None:
            return Budget(None, clock=time.time)
        budget = Budget(timeout, float(started), clock=time.time)
        for trial in self.trials:
            if trial.result.ended >= float(started):
                budget.finish(trial.result.ended)
        return budget


def watch_study(name: str, storage: str, console: Console) -> int:
    """Show a study until it has ended, and return the exit status. Ctrl-C raises `KeyboardInterrupt` and changes nothing.

    Args:
        name: The study's name.
        storage: URL of the database of the studies.
        console: Where the output goes. If it is no terminal, it gets a line for each change.

    Raises:
        RequestError: There is no such study, or its records cannot be read.
    """
    from pneumo.search.steps import service_errors
    from pneumo.tracking.store import connect_existing

    errors = service_errors()
    try:
        store = connect_existing(read_only=True)
        watched = _read(store, name, storage)
    except errors as error:
        print(f"pneumo.search: the record could not be read: {describe_error(error)}", file=sys.stderr)
        return NOTHING_FIT
    if not watched.has_ended:
        say(console, f"Watching study {name} in {store.display_uri}. Ctrl-C stops watching; the study goes on.")
        watched = _Screen(console, watched).follow(lambda: _read(store, name, storage), errors)
    _show_end(name, watched, store, console)
    return OK


class _Screen:
    """What is shown of a study that runs: live lines on a terminal, else a line for each change."""

    def __init__(self, console: Console, watched: Watched) -> None:
        self._console, self._watched, self._problem = console, watched, ""
        self._shown = {trial.number for trial in watched.trials[:-SHOWN_BEFORE]}
        self._said: set[str] = set()
        self._parts: list[str] = []
        self._lines: list[TrainingLine] = []

    def follow(self, read: Callable[[], Watched], errors: tuple[type[Exception], ...]) -> Watched:
        """Show each change until the study has ended, and return its last state."""
        with ExitStack() as stack:
            if self._console.is_terminal:
                stack.enter_context(Live(console=self._console, get_renderable=self._render, transient=True))
            while True:
                self._show_changes()
                if self._watched.has_ended:
                    return self._watched
                time.sleep(POLL_SECONDS)
                try:
                    self._watched, self._problem = read(), ""
                except Exception as error:
                    if not isinstance(error, (*errors, RequestError)):
                        raise
                    self._problem = f"the records cannot be read now: {describe_error(error)}"

    def _show_changes(self) -> None:
        watched = self._watched
        for position, trial in enumerate(watched.trials):
            if trial.number in self._shown:
                continue
            self._shown.add(trial.number)
            done = watched.trials[: position + 1]
            count = f"{len(done):>3} of {watched.experiment.search.trials} done"
            best = describe_best(done, watched.experiment)
            seconds = trial.result.ended - trial.result.started
            objectives = watched.experiment.search.objectives
            text = trial_line(count, f"trial {trial.number}", trial, objectives, best, seconds)
            say(self._console, text, indent=TRIAL_INDENT)
        self._lines = watched.training_lines
        self._parts = [*watched.study_parts, *([self._problem] if self._problem else [])]
        if not self._console.is_terminal:
            lines = [f"{line.name}  epoch {line.epoch}/{line.epochs}  {line.note}" for line in self._lines]
            lines += [self._problem] if self._problem else []
            for line in lines:
                if line not in self._said:
                    say(self._console, f"{'':{TRIAL_INDENT}}{line}")
            self._said = set(lines)

    def _render(self) -> RenderableType:
        return Group(StudyLine(self._parts), training_table(self._lines, self._console.width))


def _read(store: Store, name: str, storage: str) -> Watched:
    from pneumo.engines.engine_table import stored_studies
    from pneumo.tracking.find import explain_missing
    from pneumo.tracking.live import read_live
    from pneumo.tracking.runs import read_artifact

    live = read_live(store, name)
    if live is None:
        explain_missing(store, name)
        raise RequestError(
            f"--watch {name}: there is no such study in {store.display_uri}; give the MLFLOW_TRACKING_URI that it is "
            "searched with"
        )
    study_id = live.run.tags.get(Tags.STUDY_ID)
    stored = next((study for study in stored_studies(name, storage) if study.id == study_id), None)
    text = stored.experiment if stored else read_artifact(store, live.run.run_id, Artifacts.EXPERIMENT)
    experiment = parse_experiment(text, f"study {name}")
    searched = frozenset(dimension.name for dimension in experiment.space.searched)
    # Without the study's database, as on another machine, MLflow's runs say the same, as far as they have arrived.
    if stored:
        trials = [Trial(_with_searched(trial.candidate, searched), trial.result) for trial in stored.trials]
    else:
        by_number = {run.number: run for run in live.trials if run.state}
        trials = [_as_trial(run, experiment, searched) for run in by_number.values()]
    return Watched(experiment, sorted(trials, key=lambda trial: trial.result.ended), live)


def _with_searched(candidate: Candidate, searched: frozenset[str]) -> Candidate:
    return replace(candidate, searched=searched & set(candidate.hyperparameters))


def _as_trial(run: RecordedRun, experiment: Experiment, searched: frozenset[str]) -> Trial:
    values = _hyperparameters(run)
    state: State = "complete" if run.state == "complete" else "pruned" if run.state == "pruned" else "failed"
    value = run.metrics.get(objective_metric(experiment.search.objectives[0]))
    ended = (run.ended or run.started) / 1000
    error = run.tags.get(Tags.ERROR)
    result = TrialResult(run.number, run.run_id, state, value, run.metrics, (), error, run.started / 1000, ended)
    return Trial(Candidate(run.number, values, searched & set(values)), result)


def _hyperparameters(run: RecordedRun) -> dict[str, Value]:
    names = (name for name in run.parameters if name in Hyperparameters.model_fields)
    return {name: parse_parameter(name, run.parameters[name]) for name in names}


def _training_line(training: LiveTraining, experiment: Experiment) -> TrainingLine:
    run, objective = training.run, epoch_objective(experiment.search.objectives)
    values = _hyperparameters(run)
    searched = frozenset(dimension.name for dimension in experiment.space.searched)
    candidate = Candidate(run.number, values, searched & set(values))
    epochs = candidate.epochs
    value = run.metrics.get(epoch_metric(objective))
    note = describe_candidate(candidate)
    seconds = None
    if training.seconds_per_epoch is not None and training.last_epoch_ended is not None:
        seconds = (epochs - training.epoch) * training.seconds_per_epoch - (time.time() - training.last_epoch_ended)
    return TrainingLine(
        f"trial {run.number}" + (f", seed {run.parameters[Params.SEED]}" if run.role == "confirm" else ""),
        min(training.epoch + 1, epochs),
        epochs,
        training.epoch / epochs if training.epoch else None,
        seconds,
        note if value is None else f"{objective} {value:.4f}  {note}",
    )


def _show_end(name: str, watched: Watched, store: Store, console: Console) -> None:
    """Say how a study that has ended stands."""
    from pneumo.tracking.recorded import read_classes

    reason = watched.live.run.tags.get(Tags.ENDED)
    end = ENDS[watched.live.run.status] + (f" ({reason})" if reason else "")
    say(console, f"Study {name} {end}: {', '.join(watched.study_parts)}")
    if any(trial.result.state == "complete" for trial in watched.trials):
        complete = [run for run in watched.live.confirmations if run.state == "complete"]
        confirmed = rank_confirmed_trials(watched.trials, watched.experiment, complete)
        objective = watched.experiment.search.objectives[0]

        def compare(best: Trial, baseline: Trial) -> Comparison | None:
            ids = {run.number: run.run_id for run in watched.live.trials if run.state == "complete"}
            runs = [replace(t, result=replace(t.result, run_id=ids.get(t.number, ""))) for t in (best, baseline)]
            classes = read_classes(store, runs[0].result.run_id) if all(run.result.run_id for run in runs) else None
            return compare_with_baseline(store, runs[0], runs[1], objective, classes) if classes else None

        show_results(console, watched.experiment, watched.trials, confirmed, compare)
