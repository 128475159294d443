"""python -m pneumo.replay: train a recorded trial again, from its MLflow run, and compare the metrics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import INTERRUPTED, OK, run_command
from pneumo.spec.errors import TrialError
from pneumo.spec.objective import epoch_metric

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.data.pictures import Source
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.experiment import Experiment
    from pneumo.tracking.recorded import RecordedTraining

DIFFERENT = 1
"""Exit status if a metric differs, as for `diff`."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.replay 3f0c9a7be51d4d7f8f0f6c1f5b0f7e11\n
  the trial of this run; the id is on the run's page in MLflow, and in the study's trials.csv

python -m pneumo.replay 3f0c9a7be51d4d7f8f0f6c1f5b0f7e11 --data xrays.zip\n
  the same trial, with pictures that have moved

Exit status: 0 every metric is equal to the last bit, 1 some metrics differ, 2 wrong request, 130 interrupted."""
)
def main(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The MLflow run of a complete or pruned trial.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The pictures, if they have moved: a zip, a folder or MedMNIST's npz."),
    ] = None,
) -> int:
    """Train a recorded trial again, from its MLflow run, and show the difference in each metric.

    Before the training it prints what differs from the record: pictures, code,
    libraries, device, threads. It trains with deterministic operations and the
    recorded number of threads, and records nothing in MLflow. A pruned trial is
    trained up to the epoch where it was pruned; a trial that continued another
    one is trained from its first epoch.
    """
    from pneumo.console.display import open_console
    from pneumo.data.sources import open_source
    from pneumo.replay.record import read_trial, trial_candidate, trial_experiment

    recorded = read_trial(run_id)
    experiment = trial_experiment(recorded, data)
    candidate = trial_candidate(recorded, experiment)
    source = open_source(experiment.data)
    console = open_console()
    try:
        return _replay(recorded, experiment, candidate, source, console)
    except KeyboardInterrupt:
        console.print("\nInterrupted; nothing was recorded.")
        return INTERRUPTED


def _replay(
    recorded: RecordedTraining, experiment: Experiment, candidate: Candidate, source: Source, console: Console
) -> int:
    from pneumo.console.display import say
    from pneumo.console.trainings import TrainingProgress
    from pneumo.data.split import describe_split
    from pneumo.replay.compare import compare, environment_changes
    from pneumo.replay.report import describe_trial, print_changes, print_comparison
    from pneumo.replay.retrain import ask_device, open_worker, prepare_pictures, train_again

    progress = TrainingProgress(console, epoch_metric(experiment.search.objectives[0]))
    with open_worker(recorded) as place:
        say(console, describe_trial(recorded, candidate))
        pictures = prepare_pictures(experiment, source, console)
        say(console, describe_split(pictures.description, pictures.counts, pictures.classes, pictures.patients_known))
        say(console, f"MLflow: {recorded.store_uri} (this replay records nothing)")
        device = ask_device(place, candidate, progress)
        print_changes(environment_changes(recorded, pictures, device), console)
        trained = train_again(place, recorded, experiment, candidate, pictures, progress)
    if isinstance(trained, TrialError):
        print(
            f"pneumo.replay: the training failed, but is recorded as {recorded.run.state}: {trained}", file=sys.stderr
        )
        return DIFFERENT
    comparison = compare(recorded, trained, pictures)
    print_comparison(comparison, console)
    return DIFFERENT if comparison.different else OK


if __name__ == "__main__":
    run_command(app, "replay")
