"""What a search was asked for, and the values that its steps hand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from pneumo.console.command import TypedCommand
from pneumo.search.flush import Flush
from pneumo.search.loop import Ending
from pneumo.spec.candidate import SkipReason
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.pictures import Source
    from pneumo.engines.protocol import Engine
    from pneumo.engines.shared_study import Driver
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import RecordedStudy


@dataclass(frozen=True)
class SearchRequest:
    """What the user asked for.

    Args:
        experiment: The study.
        source: Its pictures.
        findings: What is known to be wrong with them.
        storage: URL of the database of the study.
        command: The search as it was typed.
        console: Where the output goes.
        ray: Address of the Ray cluster on which trials run; None for processes of this machine.
    """

    experiment: Experiment
    source: Source
    findings: Sequence[Finding]
    storage: str
    command: TypedCommand
    console: Console
    ray: str | None = None


@dataclass(frozen=True)
class OpenStudy:
    """A study: its engine, its way to MLflow, and what both hold of earlier searches.

    This process alone works on it, unless it is one `driver` of several.
    """

    engine: Engine
    flush: Flush
    finished_trials: Sequence[Trial]
    recorded: RecordedStudy | None
    driver: Driver | None

    @property
    def store(self) -> Store:
        return self.flush.store


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to.

    `is_sent` is False if MLflow has not taken all of it. `left_to` names the searches that still work on the study, if it is
    shared.
    """

    ending: Ending
    finished_trials: Sequence[Trial]
    confirmed: Sequence[Confirmation]
    skipped: Mapping[SkipReason, int]
    is_sent: bool
    left_to: str | None = None
