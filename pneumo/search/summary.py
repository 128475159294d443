"""The end of a search: what it says of the study, what to do next, the exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from pneumo.console.command import INTERRUPTED, NOTHING_FIT, OK, TypedCommand, program_path
from pneumo.console.display import say, say_command
from pneumo.search.comparison import compare_with_baseline
from pneumo.search.loop import Ending
from pneumo.search.results import show_results
from pneumo.spec.candidate import SkipReason
from pneumo.spec.experiment import Experiment
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation
from pneumo.spec.sources import GENERATED_SOURCES
from pneumo.spec.stopping import common_cause
from pneumo.spec.wording import count_of, describe_skipped

if TYPE_CHECKING:
    from pneumo.tracking.store import Store


def summarize(
    experiment: Experiment,
    finished_trials: Sequence[Trial],
    store: Store,
    command: TypedCommand,
    console: Console,
    classes: Sequence[str],
    ending: Ending | None = None,
    confirmed: Sequence[Confirmation] = (),
    skipped: Mapping[SkipReason, int] | None = None,
) -> int:
    """Say how the study stands and what to do next. Return the exit status.

    Args:
        experiment: The study's experiment.
        finished_trials: Its finished trials, with the ids of their runs in MLflow.
        store: The MLflow store that holds its runs.
        command: The search as it was typed.
        console: Where the lines go.
        classes: Names of the two classes.
        ending: Why the search ended; None if the study was complete before.
        confirmed: The confirmed trials, best first.
        skipped: How many proposals were not trained, by reason.
    """
    is_any_complete = any(trial.result.state == "complete" for trial in finished_trials)
    if is_any_complete:
        objective = experiment.search.objectives[0]
        show_results(
            console,
            experiment,
            finished_trials,
            confirmed,
            lambda best, baseline: compare_with_baseline(store, best, baseline, objective, classes),
        )
    for line in describe_skipped(skipped or {}):
        say(console, line)
    if ending and ending.interrupted:
        say_resume(console, "Interrupted. Everything so far is saved.", command)
        return INTERRUPTED
    if ending and ending.broken:
        print(f"pneumo.search: {ending.reason}", file=sys.stderr)
        say(console, "After you have fixed that, run the same command again to resume the study:")
        say_command(console, f"  {command}")
        return NOTHING_FIT
    if not is_any_complete:
        print(f"pneumo.search: {_nothing_complete(finished_trials, ending)}", file=sys.stderr)
        return NOTHING_FIT
    say_command(console, f"Compare the trials:  {_mlflow_page(store, experiment.name)}")
    if experiment.data.source in GENERATED_SOURCES:
        from pneumo.data.sources import FETCHES

        say(
            console,
            "The pictures were generated phantoms, not X-rays. To fetch real ones (the first needs a Kaggle token, the "
            "second is smaller and needs none):",
        )
        for archive in FETCHES:
            say_command(console, f"  {shlex.join([program_path('python'), '-m', 'pneumo.data', 'fetch', archive])}")
    elif ending is None or not ending.exhausted:
        say_command(console, f"Search further:      {command.with_option('--trials', str(2 * len(finished_trials)))}")
    promote = shlex.join([program_path("python"), "-m", "pneumo.promote", experiment.name])
    say_command(console, f"Promote the best:    {promote}")
    return OK


def say_resume(console: Console, reason: str, command: TypedCommand) -> None:
    """Say why a search ended, if there is anything to say, and how to resume the study."""
    say(console, f"{reason} To resume the study, run the same command again:".lstrip(" "))
    say_command(console, f"  {command}")


def _nothing_complete(finished_trials: Sequence[Trial], ending: Ending | None) -> str:
    if not finished_trials:
        return f"no trial was started: {ending.reason if ending else 'the study has none'}"
    errors = [trial.result.error for trial in finished_trials if trial.result.error]
    cause = f"; most often: {common_cause(errors)[0]}" if errors else ""
    return f"none of {count_of(len(finished_trials), 'trial')} completed{cause}"


def _mlflow_page(store: Store, name: str) -> str:
    """Return how to see a study in MLflow: the command that opens its page, and the address for a bare `mlflow ui`.

    Of a server, the address there.
    """
    from pneumo.tracking.study import experiment_id
    from pneumo.tracking.views import study_page_address

    address = study_page_address(experiment_id(store, name))
    ui = shlex.join([program_path("python"), "-m", "pneumo.ui", name])
    if store.uri.startswith("http"):
        return f"{ui}\n  or open {store.display_uri.rstrip('/')}{address}"
    option = "" if store.default else f" --backend-store-uri {shlex.quote(store.display_uri)}"
    mlflow_ui = f"{shlex.quote(program_path('mlflow'))} ui{option}"
    return f"{ui}\n  or run {mlflow_ui} and open http://127.0.0.1:5000{address}"
