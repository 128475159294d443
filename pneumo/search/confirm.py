"""The best trials trained again over other seeds, before one of them is called the best.

The first value of the best of many trials is partly luck: it was chosen for being high. The mean over new seeds is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pneumo.compute.place import Place
from pneumo.console.display import ConfirmScreen
from pneumo.search.loop import Ending, Study
from pneumo.search.recorder import StudyRecord
from pneumo.spec.best import best_first
from pneumo.spec.candidate import Candidate, Done, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import State, Trial, TrialResult

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.spec.run import RecordedRun

FIRST_SEED = 1_000_000
"""Beyond the study's own: no trial was trained with one of these. Every trial is trained with the same ones."""


def missing(told: Sequence[Trial], experiment: Experiment, runs: Sequence[RecordedRun]) -> list[tuple[Trial, int]]:
    """The trials and seeds that are still to be trained, the best trial first, all seeds of one together."""
    spec = experiment.search.confirm
    if spec is None:
        return []
    done = {(run.number, int(run.parameters["seed"])) for run in runs}
    seeds = [FIRST_SEED + experiment.search.seed + n for n in range(spec.seeds)]
    best = best_first(told, experiment)[: spec.top]
    return [(trial, seed) for trial in best for seed in seeds if (trial.number, seed) not in done]


def confirm(
    experiment: Experiment,
    record: StudyRecord,
    told: Sequence[Trial],
    ending: Ending,
    *,
    place: Place,
    console: Console,
    interrupted: Callable[[], bool],
) -> Ending:
    """Trains what is missing after a search that ended so, and says how it has ended now.

    Where nothing is missing, or the search was interrupted or broken off, nothing is trained.
    """
    spec = experiment.search.confirm
    if spec is None or ending.interrupted or ending.broken:
        return ending
    wanted = _Wanted(missing(told, experiment, record.confirmations()), record)
    if not wanted.pairs:
        return ending
    screen = ConfirmScreen(experiment, console, lambda c: (wanted.trial(c).number, wanted.seed(c)))
    screen.say(f"Ended: {ending.reason}. Training the best again over {spec.seeds} other seeds:")
    study = Study(
        experiment.search.model_copy(update={"trials": len(wanted.pairs), "timeout": None, "patience": None}),
        engine=wanted,
        place=place,
        record=_Record(record, wanted),
        payload=lambda candidate, run_id: record.task(wanted.trial(candidate), run_id, wanted.seed(candidate)),
        screen=screen,
    )
    with screen:
        done = study.run(interrupted)
    if done.broken:
        screen.say(f"Not all could be trained again: {done.reason}.")
    return done if done.interrupted else ending


class _Wanted:
    """An `Engine` that proposes trials again; its numbers count the trainings."""

    id = ""

    def __init__(self, pairs: Sequence[tuple[Trial, int]], record: StudyRecord) -> None:
        self.pairs, self._record = pairs, record
        self._asked = 0

    def learn(self, trials: Sequence[Trial]) -> None:
        """Nothing: what is proposed is known."""

    def ask(self) -> Candidate | Wait | Done:
        if self._asked == len(self.pairs):
            return Done("all are trained")
        number, self._asked = self._asked, self._asked + 1
        trial, _ = self.pairs[number]
        # From its first epoch on, also where the search had it continue another trial.
        return Candidate(number, trial.candidate.hyperparameters, trial.candidate.searched)

    def report(self, number: int, epoch: int, value: float) -> bool:
        return True

    def tell(self, result: TrialResult) -> None:
        """MLflow's runs are the record."""
        if result.state == "complete":
            trial, seed = self.pairs[result.number]
            self._record.confirmed(result, trial.number, seed)

    def trials(self) -> tuple[Trial, ...]:
        return ()

    def trial(self, candidate: Candidate) -> Candidate:
        """The candidate under the number that it had in the search."""
        return replace(candidate, number=self.pairs[candidate.number][0].number)

    def seed(self, candidate: Candidate) -> int:
        return self.pairs[candidate.number][1]


class _Record:
    """A `Record` of `pneumo.study` for trainings."""

    def __init__(self, record: StudyRecord, wanted: _Wanted) -> None:
        self._record, self._wanted = record, wanted

    def begin(self, candidate: Candidate) -> str:
        return self._record.start(self._wanted.trial(candidate), self._wanted.seed(candidate), "confirm")

    def end(self, run_id: str, state: State | Any, error: str | None = None, output: str = "") -> None:
        self._record.end(run_id, state, error, output)
