"""python -m pneumo.replay: train a recorded trial again, from its MLflow run alone, and show the difference."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pneumo.console.command import INTERRUPTED, OK, run_command
from pneumo.spec.errors import RequestError, TrialError
from pneumo.spec.masking import mask_passwords

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pneumo.compute.place import Place
    from pneumo.console.display import TrainingProgress
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.replay.compare import Change, Figure
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.experiment import Experiment
    from pneumo.spec.hyperparameters import Value
    from pneumo.tracking.recorded import RecordedTrial
    from pneumo.training.trial import Trained

DIFFERENT = 1
"""Exit status where a metric differs, as of `diff`."""

TICK = 0.2

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.replay 3f0c9a7be51d4d7f8f0f6c1f5b0f7e11\n
  the trial of this run; its id is on the run's page in MLflow, and in the study's trials.csv

python -m pneumo.replay 3f0c9a7be51d4d7f8f0f6c1f5b0f7e11 --data /other/place/chest-xray-pneumonia.zip\n
  the same, with the pictures elsewhere than they were

Exit status: 0 every metric is equal to the last bit; 1 some differ; 2 the request was wrong; 130 interrupted."""
)
def main(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The MLflow run of a trial, complete or pruned.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The pictures: a zip, a folder or MedMNIST's npz; replaces data.path."),
    ] = None,
) -> int:
    """Train a recorded trial again, from its MLflow run alone, and show the difference in each metric.

    What differs from the record (pictures, code, libraries, device, threads) is said before the training starts. It runs
    with deterministic operations and the record's number of threads, and leaves nothing in MLflow. A pruned trial is
    trained to where it was stopped, one that went on from another from its first epoch.
    """
    from pneumo.compute.local import LocalProcesses
    from pneumo.compute.place import PlaceError
    from pneumo.console.display import open_console
    from pneumo.data.sources import open_source
    from pneumo.training import trial
    from pneumo.training.provenance import THREADS

    recorded = _recorded(run_id)
    experiment = _experiment(recorded, data)
    candidate = _candidate(recorded, experiment)
    source = open_source(experiment.data)
    # Before the worker starts, which inherits it.
    if (threads := recorded.tags.get("pneumo.threads", "")).isdigit():
        os.environ[THREADS] = threads
    console = open_console()
    place = LocalProcesses(trial.replay_trial, trial.warm_up_deterministic)
    try:
        return _replay(recorded, experiment, candidate, source, place, console)
    except KeyboardInterrupt:
        console.print("\nInterrupted; nothing was recorded.")
        return INTERRUPTED
    except PlaceError as error:
        raise RequestError(str(error)) from error
    finally:
        place.close()


def _recorded(run_id: str) -> RecordedTrial:
    from pneumo.tracking.recorded import recorded_trial
    from pneumo.tracking.store import ERRORS, connect_existing

    store = connect_existing()
    try:
        return recorded_trial(store, run_id)
    except ERRORS as error:
        raise RequestError(f"tracking store {store.shown}: {mask_passwords(str(error))[:300]}") from None


def _experiment(recorded: RecordedTrial, data: str | None) -> Experiment:
    """The experiment of the trial's study, on the pictures at `data` where that is given."""
    from pneumo.spec.experiment_file import read_experiment

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "experiment.yaml")
        path.write_text(recorded.experiment_yaml, encoding="utf-8")
        try:
            return read_experiment(path, (), {} if data is None else {"data.path": data})
        except RequestError as error:
            message = str(error).replace(str(path), f"{recorded.run_id}: its experiment.yaml")
            raise RequestError(message) from None


def _candidate(recorded: RecordedTrial, experiment: Experiment) -> Candidate:
    """What was trained. Its precision is what `auto` came to."""
    from pydantic import ValidationError

    from pneumo.spec.candidate import Candidate
    from pneumo.spec.hyperparameters import NAMES

    where, values = f"{recorded.run_id}: its parameter", {}
    for name, text in recorded.parameters.items():
        if name == "seed":
            continue
        if name not in NAMES:
            raise RequestError(f"{where} {name} is none that this version has; take the version that trained it")
        values[name] = _typed(name, text, where)
    if precision := recorded.tags.get("pneumo.precision"):
        values["precision"] = precision
    search = experiment.search
    rung = recorded.role == "trial" and (search.engine, search.algorithm) == ("keras-tuner", "hyperband")
    full = int(experiment.space.possible_values("epochs")[0]) if rung else None
    searched = frozenset(dimension.name for dimension in experiment.space.searched) & set(values)
    candidate = Candidate(recorded.number, values, searched, full_epochs=full)
    try:
        _ = candidate.values, candidate.epochs
    except (ValidationError, KeyError) as error:
        raise RequestError(f"{where}s are not those of a trial: {error}") from None
    return candidate


def _typed(name: str, text: str, where: str) -> Value:
    """A hyperparameter from its text in MLflow, to the last bit."""
    from pneumo.spec.hyperparameters import value_type

    types: Mapping[type, Any] = {bool: {"true": True, "false": False}.__getitem__, int: int, float: float, str: str}
    try:
        value: Value = types[value_type(name)](text)
    except (KeyError, ValueError):
        raise RequestError(f"{where} {name} is {text!r}, which is no {value_type(name).__name__}") from None
    return value


def _replay(
    recorded: RecordedTrial,
    experiment: Experiment,
    candidate: Candidate,
    source: Source,
    place: Place,
    console: Console,
) -> int:
    from pneumo.console.display import TrainingProgress, progress_bar, say
    from pneumo.data.prepare import prepare
    from pneumo.data.split import describe_split
    from pneumo.replay.compare import environment_changes
    from pneumo.training.trial import TrialTask

    progress, last = TrainingProgress(console, experiment.search.objectives[0]), len(recorded.epochs)
    say(console, _title(recorded, candidate))
    with progress_bar("decoding pictures, once", console) as decoded:
        data = prepare(
            source,
            experiment.image_sizes,
            experiment.data.validation,
            experiment.search.seed,
            progress=decoded,
            say=lambda line: print(line, file=sys.stderr),
        )
    say(console, describe_split(data.description, data.counts, data.classes))
    say(console, f"MLflow: {recorded.store}, where this leaves nothing")
    device = _result(place, candidate.number, None, last, progress)
    if isinstance(device, TrialError):
        raise RequestError(f"no training can be run here: {device}")
    _say_changes(environment_changes(recorded, data, device), console)
    task = TrialTask(
        study=recorded.study,
        candidate=candidate,
        run_id=recorded.run_id,
        outbox=None,
        objectives=experiment.search.objectives,
        seed=int(recorded.parameters["seed"]),
        data=data,
    )
    with progress:
        progress.start(candidate.number, candidate)
        trained = _result(place, candidate.number, task, last, progress)
    if isinstance(trained, TrialError):
        print(f"pneumo.replay: the training, recorded as {recorded.state}, failed: {trained}", file=sys.stderr)
        return DIFFERENT
    return _compare(recorded, trained, data, console)


def _title(recorded: RecordedTrial, candidate: Candidate) -> str:
    from pneumo.spec.wording import describe_candidate

    again = "" if recorded.role == "trial" else ", trained once more to confirm it"
    last, full = len(recorded.epochs), candidate.full_epochs or candidate.epochs
    epochs = f"{last} epoch{'' if last == 1 else 's'}" if last == full else f"epochs 1 to {last} of {full}"
    if recorded.state == "pruned":
        epochs += ", after which it was pruned"
    if below := recorded.tags.get("pneumo.resumed_from"):
        epochs += f" (the record goes on from trial {below})"
    return (
        f"Trial {recorded.number} of study {recorded.study}{again}: {describe_candidate(candidate) or 'nothing searched'}; "
        f"seed {recorded.parameters['seed']}; {epochs}"
    )


def _say_changes(found: Sequence[Change], console: Console) -> None:
    from pneumo.console.display import say

    if not found:
        say(console, "Data, code, libraries, device and threads are those of the record.")
        return
    say(console, "Not known to be as in the record:")
    for change in found:
        surely = "; the figures will differ" if change.certain else ""
        say(console, f"  {change.what}: {change.recorded} → {change.now}{surely}")


def _result(place: Place, number: int, payload: Any, last: int, progress: TrainingProgress) -> Any:
    """What the place's process makes of a payload, or a `TrialError`; a training is stopped after epoch `last`."""
    from pneumo.compute.place import Died, Ended, Progress, Report, Task

    place.submit(Task(number, payload))
    while True:
        match place.next_event(TICK):
            case Progress() as step:
                progress.step(step.number, step.epoch, step.step, step.steps)
            case Report() as report:
                progress.epoch(report.number, report.metrics)
                place.answer(number, report.epoch < last)
            case Ended(result=result):
                return result
            case Died(reason=reason):
                return TrialError(reason)


def _compare(recorded: RecordedTrial, trained: Trained, data: Prepared, console: Console) -> int:
    """Prints both trainings side by side; the exit status."""
    from rich.text import Text

    from pneumo.evidence.tables import predictions_csv
    from pneumo.replay.compare import by_epoch, once, probability, times

    rows = data.validation
    names, patients = ([of[row] for row in rows] for of in (data.names, data.patients))
    table = predictions_csv(names, patients, data.labels[rows], trained.probabilities, data.classes)
    predicted, common = probability(recorded.predictions_csv, table)
    compared = [*once(recorded, trained), *by_epoch(recorded, trained), *predicted]
    title = f"Where it differs most, of {len(trained.history)} epochs and {common:,} validation pictures in common"
    console.print(_figures(title, compared))
    spent = times(recorded, trained)
    console.print(_speed(spent))
    seconds, different = spent[0], [figure for figure in compared if not figure.equal]
    said = (
        f"The epochs took {seconds.replayed:.1f} s with deterministic operations, recorded {seconds.recorded:.1f} s: "
        f"{seconds.replayed / seconds.recorded:.2f} times.\n"
    )
    if different:
        most = max(different, key=lambda figure: figure.distance)
        said += (
            f"{len(different)} of {len(compared)} metrics differ, the largest difference is {most.distance:.3g}: "
            f"{most.name}{most.at and f' of {most.at}'}."
        )
    else:
        said += "Every metric is equal to the last bit."
    console.print(Text(said), soft_wrap=True)
    return DIFFERENT if different else OK


def _figures(title: str, figures: Sequence[Figure]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("of", overflow="fold")
    for name in ("recorded", "replayed", "difference"):
        table.add_column(name, justify="right")
    for figure in figures:
        difference = "0" if figure.equal else f"{figure.replayed - figure.recorded:+.3g}"
        cells = (f"{figure.recorded:.8g}", f"{figure.replayed:.8g}", difference)
        table.add_row(figure.name, Text(figure.at), *cells, style="" if figure.equal else "yellow")
    return table


def _speed(figures: Sequence[Figure]) -> Table:
    from rich.table import Table

    table = Table(title="Speed, which is not compared", title_justify="left")
    for name in ("metric", "of"):
        table.add_column(name)
    for name in ("recorded", "replayed", "times"):
        table.add_column(name, justify="right")
    for figure in figures:
        cells = (f"{figure.recorded:.4g}", f"{figure.replayed:.4g}", f"{figure.replayed / figure.recorded:.2f}")
        table.add_row(figure.name, figure.at, *cells)
    return table


if __name__ == "__main__":
    run_command(app, "replay")
