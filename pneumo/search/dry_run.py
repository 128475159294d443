"""`--dry-run`: show what a search would do, and train nothing."""

from __future__ import annotations

import tempfile

from rich.console import Console

from pneumo.compute.disk import describe_needs
from pneumo.compute.workers import count_trainings, plan_workers
from pneumo.console.display import say
from pneumo.data.pictures import Source, describe_patients
from pneumo.data.split import count_split, describe_split
from pneumo.engines.engine_table import open_engine
from pneumo.search.preflight import disk_needs
from pneumo.spec.candidate import Candidate, Done
from pneumo.spec.experiment import Experiment
from pneumo.spec.wording import describe_candidate, describe_skipped

CANDIDATES = 3
"""Candidates that a dry run shows."""


def show_dry_run(experiment: Experiment, source: Source, console: Console) -> None:
    """Show the resolved experiment, the split, the first candidates of a new study, and the disk space it needs."""
    say(console, experiment.to_yaml().rstrip())
    counts = count_split(source, experiment.data.validation, experiment.search.seed)
    all_pictures = [*source.pictures, *source.sealed]
    say(console, describe_split(source.description, counts, source.classes, describe_patients(all_pictures)))
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(experiment, f"sqlite:///{folder}/studies.db")
        proposals = [engine.ask() for _ in range(min(CANDIDATES, experiment.search.trials))]
        skipped = engine.skipped()
    for line in source.remarks:
        say(console, line)
    say(console, "The first candidates of a new study:")
    for candidate in proposals:
        if isinstance(candidate, Candidate):
            say(console, f"  {candidate.number}  {describe_candidate(candidate)}")
        elif isinstance(candidate, Done):
            say(console, f"There are no more: {candidate.reason}.")
            break
    for line in describe_skipped(skipped):
        say(console, line)
    for line in describe_needs(disk_needs(experiment, source)):
        say(console, line)
    if fewer := plan_workers(experiment).describe(count_trainings(experiment)):
        say(console, fewer)
    say(console, "Nothing was trained. To run the search, leave out --dry-run.")
