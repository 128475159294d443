"""`--dry-run`: show what a search would do, and train nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from pneumo.compute.disk import describe_needs
from pneumo.compute.workers import count_trainings
from pneumo.console.display import say
from pneumo.data.pictures import Source, describe_patients
from pneumo.data.split import count_split, describe_split
from pneumo.engines.engine_table import open_engine
from pneumo.search.places import plan_place
from pneumo.search.preflight import audit_command, disk_needs
from pneumo.search.screen import describe_search, describe_warnings
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.experiment import Experiment
from pneumo.spec.wording import describe_candidate, describe_skipped

if TYPE_CHECKING:
    from pneumo.data.audit import Finding

CANDIDATES = 3
"""Candidates that a dry run shows."""


def show_dry_run(
    experiment: Experiment, source: Source, findings: Sequence[Finding], ray: str | None, console: Console
) -> None:
    """Show what the search would do: the trials, the split, the first candidates of a new study, and the disk space it needs.

    Args:
        experiment: The study's experiment.
        source: Its pictures.
        findings: What is known to be wrong with them.
        ray: The option --ray; None for processes of this machine.
        console: Where the lines go.

    Raises:
        RequestError: The GPUs that were asked for are not there.
    """
    plan = plan_place(experiment, ray)
    experiment = plan.experiment
    say(console, f"Nothing is trained. Without --dry-run this would run:\n{describe_search(experiment)}")
    counts = count_split(source, experiment.data.validation, experiment.search.seed)
    all_pictures = [*source.pictures, *source.sealed]
    say(console, describe_split(source.description, counts, source.classes, describe_patients(all_pictures)))
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(experiment, f"sqlite:///{folder}/studies.db")
        proposals = [engine.ask() for _ in range(min(CANDIDATES, experiment.search.trials))]
        skipped = engine.skipped()
    for line in (*source.remarks, *describe_warnings(findings, audit_command(experiment))):
        say(console, line, indent=2)
    say(console, "The first candidates of a new study:")
    for candidate in proposals:
        if isinstance(candidate, Candidate):
            say(console, f"  trial {candidate.number}  {describe_candidate(candidate)}", indent=4)
        elif isinstance(candidate, Done):
            say(console, f"There are no more: {candidate.reason}.")
            break
    for line in describe_skipped(skipped):
        say(console, line)
    for line in describe_needs(disk_needs(experiment, source)):
        say(console, line)
    say(console, plan.preview(count_trainings(experiment)))
    say(console, "--dry-run --yaml prints every setting of the experiment.")
