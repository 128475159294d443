"""A whole study as MLflow stores it: what a report of the study is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pneumo.spec.best import baseline_trial, best_first, best_metric, rank_confirmed_trials
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import Direction
from pneumo.spec.result import Trial
from pneumo.spec.run import RecordedRun
from pneumo.spec.selection import Confirmation
from pneumo.spec.sources import GENERATED_SOURCES


@dataclass(frozen=True)
class RecordedFinding:
    """A finding of the audit, as the study's run stores it.

    Attributes:
        kind: One word for programs.
        severity: `fault`, `warning` or `note`.
        message: One line for people.
        pictures: The number of pictures concerned.
    """

    kind: str
    severity: str
    message: str
    pictures: int


@dataclass(frozen=True)
class StudyRecord:
    """A whole study as MLflow stores it.

    Attributes:
        experiment: The study's experiment.
        run: The study's run.
        trials: The finished trials, by number. Those that were killed or still run are not among them.
        runs: The run of each finished trial, by the trial's number.
        confirmation_runs: The runs of the complete confirmations.
        interrupted: Number of runs of trials or confirmations that ended before their training did.
        findings: What the audit found.
        counts: For each part of the pictures, counts such as `{"num_rows": 4578, "NORMAL": 1180, ...}`.
        files: The artifacts of the best trial and of the baseline, by the trial's number and the path in the run. A trial
            that has no run with artifacts is missing.
        page: Address of the pages of the study's runs, to which a run's id is appended; None if no server is known.
    """

    experiment: Experiment
    run: RecordedRun
    trials: Sequence[Trial]
    runs: Mapping[int, RecordedRun]
    confirmation_runs: Sequence[RecordedRun] = ()
    interrupted: int = 0
    findings: Sequence[RecordedFinding] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: Mapping[int, Mapping[str, bytes]] = field(default_factory=dict)
    page: str | None = None

    @property
    def name(self) -> str:
        return self.experiment.name

    @property
    def objectives(self) -> Sequence[str]:
        return self.experiment.search.objectives

    @property
    def phantom(self) -> bool:
        """Whether the pictures are generated phantoms."""
        return self.experiment.data.source in GENERATED_SOURCES

    @property
    def metric(self) -> str:
        """The metric that decides which trial is the best."""
        return best_metric(self.experiment)[0]

    @property
    def direction(self) -> Direction:
        """The direction of `metric`."""
        return best_metric(self.experiment)[1]

    @cached_property
    def confirmed(self) -> Sequence[Confirmation]:
        """The confirmed trials, best mean first."""
        return rank_confirmed_trials(self.trials, self.experiment, self.confirmation_runs)

    @cached_property
    def ranking(self) -> Sequence[Trial]:
        """The complete trials within the bounds of the rule, best first."""
        return best_first(self.trials, self.experiment, self.confirmed)

    @property
    def best(self) -> Trial | None:
        return self.ranking[0] if self.ranking else None

    @property
    def baseline(self) -> Trial | None:
        """The trial of the tutorial's network, if it is complete."""
        trial = baseline_trial(self.trials, self.experiment)
        return trial if trial and trial.result.state == "complete" else None

    def of_state(self, state: str) -> list[Trial]:
        """Return the trials that ended in a state."""
        return [trial for trial in self.trials if trial.result.state == state]
