"""Confirmation: the best trials are trained again with other seeds before one of them is called the best.

The value of the best of many trials is partly luck, since the trial was chosen for it. The mean over new seeds is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from rich.console import Console

from pneumo.compute.place import Place
from pneumo.console.display import say
from pneumo.search.loop import Ending, Training, TrainingLoop
from pneumo.search.recorder import StudyRecorder
from pneumo.search.schedule import FailureStreak
from pneumo.search.screen import ConfirmationListener
from pneumo.spec.best import best_first
from pneumo.spec.candidate import Candidate, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Params
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.run import RecordedRun
from pneumo.spec.wording import count_of

FIRST_SEED = 1_000_000
"""First seed of confirmations, to which the study's seed is added. No trial of a search has a seed as high.

Every trial is trained with the same seeds.
"""


def missing_confirmations(
    finished_trials: Sequence[Trial], experiment: Experiment, confirmations: Sequence[RecordedRun]
) -> list[Training]:
    """Return the confirmations that are still to be trained, the best trial first, all seeds of a trial together.

    Args:
        finished_trials: The study's finished trials.
        experiment: Says how many trials are confirmed, over how many seeds.
        confirmations: The runs of the confirmations that are complete.
    """
    confirm = experiment.search.confirm
    if confirm is None:
        return []
    done = {(run.number, int(run.parameters[Params.SEED])) for run in confirmations}
    seeds = [FIRST_SEED + experiment.search.seed + n for n in range(confirm.seeds)]
    best = best_first(finished_trials, experiment)[: confirm.top]
    return [
        Training(_from_first_epoch(trial.candidate), seed)
        for trial in best
        for seed in seeds
        if (trial.number, seed) not in done
    ]


def confirm_best(
    experiment: Experiment,
    recorder: StudyRecorder,
    finished_trials: Sequence[Trial],
    ending: Ending,
    *,
    place: Place,
    console: Console,
    interrupted: Callable[[], bool],
) -> Ending:
    """Run the missing confirmations after a search that ended with `ending`, and return the final ending.

    Nothing is trained if none is missing, or if the search was interrupted or broken off.
    """
    confirm = experiment.search.confirm
    if confirm is None or ending.interrupted or ending.broken:
        return ending
    missing = missing_confirmations(finished_trials, experiment, recorder.confirmations())
    if not missing:
        return ending
    say(
        console,
        f"Ended: {ending.reason}. Confirming the best trials with {count_of(confirm.seeds, 'other seed')} each:",
    )
    schedule = _Confirmations(missing, recorder, FailureStreak(experiment.search.max_failures))
    place.start(len(missing))
    latest_end = max((trial.result.ended for trial in finished_trials), default=0.0)
    retries = experiment.search.retries
    with ConfirmationListener(experiment, console, len(missing)) as listener:
        confirmed = TrainingLoop(schedule, place, recorder, listener, latest_end, retries).run(interrupted)
    if confirmed.broken:
        say(console, f"Not all confirmations were trained: {confirmed.reason}.")
    return confirmed if confirmed.interrupted else ending


def _from_first_epoch(candidate: Candidate) -> Candidate:
    """Return the candidate without the trial that it continued: a confirmation starts at the first epoch."""
    return Candidate(candidate.number, candidate.hyperparameters, candidate.searched)


class _Confirmations:
    """A `Schedule` of confirmations. MLflow's runs are their only record, so no engine hears of them."""

    def __init__(self, missing: Sequence[Training], recorder: StudyRecorder, failures: FailureStreak) -> None:
        self._missing, self._recorder, self._failures = deque(missing), recorder, failures

    def next(self, running: int) -> Training | Wait | Ending:
        if ending := self._failures.ending:
            return ending
        return self._missing.popleft() if self._missing else Ending("all confirmations are done")

    def report(self, training: Training, epoch: int, value: float) -> bool:
        return True

    def finish(self, training: Training, result: TrialResult) -> None:
        self._failures.add(result)
        if result.state == "complete":
            self._recorder.add_confirmation(training, result)
