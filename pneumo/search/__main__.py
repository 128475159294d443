"""python -m pneumo.search: run a study, or take one up."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import (
    FAULTY,
    INTERRUPTED,
    NOTHING_FIT,
    OK,
    describe_error,
    hold_folder_lock,
    program_path,
    run_command,
)
from pneumo.console.signals import interruption
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.compute.place import Place
    from pneumo.console.display import Screen
    from pneumo.data.audit import Finding
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.spec.experiment import Experiment
    from pneumo.spec.result import Trial
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import Recorded

DRY_RUN_CANDIDATES = 3
QUICKSTART = Path("experiments/quickstart.yaml")
STORAGE = "sqlite:///mlruns/studies.db"

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.search\n
  the quick start: a small study on generated phantoms, offline, in about a minute

python -m pneumo.search experiments/article.yaml --data chest-xray-pneumonia.zip\n
  30 trials on real X-rays

python -m pneumo.search experiments/article.yaml --data chest-xray-pneumonia.zip --trials 40\n
  the same command again goes on where it stopped; --trials is the total

python -m pneumo.search experiments/article.yaml --set layers=2 --set search.pruner=median --name two-layers --dry-run\n
  what would run, with two settings changed

python -m pneumo.search experiments/article.yaml --engine keras-tuner --name article-bayesian\n
  the same space, with Keras Tuner proposing

python -m pneumo.search --check article\n
  is the record of this study whole, in MLflow and in its database? Reads only

Every trial is an MLflow run: mlflow ui, in this folder, shows and compares them.
Exit status: 0 done; 1 --check found faults; 2 the request was wrong; 3 no trial is fit to use, or what the search needs
stayed away for search.outage; 130 interrupted. All is kept, and the same command goes on."""
)
def main(
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT.yaml", help="What to search; left out: the quick start.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The pictures: a zip, a folder or MedMNIST's npz; replaces data.path."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="STUDY", help="Name of the study; replaces name.")] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Trials in all, those of earlier runs included.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="90m", help="Start no trial after this time: 90s, 45m, 2h.")
    ] = None,
    engine: Annotated[str | None, typer.Option(metavar="E", help="Who proposes: optuna or keras-tuner.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Trials at once; a GPU for each.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, as layers=2 or search.pruner=median; repeatable."
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Database of the studies; Keras Tuner's lie in a folder beside it.",
            envvar="PNEUMO_STORAGE",
        ),
    ] = STORAGE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and train nothing.")] = False,
    check_study: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Say whether this study's record is whole, and do nothing else.")
    ] = None,
) -> int:
    """Search hyperparameters of a chest X-ray classifier; every trial is an MLflow run.

    The first trial is the tutorial's own network, so a study says how far it got beyond it. A study is known by its
    name: the same command again takes it up where it stopped.
    """
    if check_study:
        return _check(check_study, storage)
    from pneumo.console.display import open_console
    from pneumo.data.sources import open_source
    from pneumo.search.preflight import check_leaks
    from pneumo.spec.experiment import read_experiment

    options = {"name": name, "data.path": data, "search.trials": trials, "search.timeout": timeout}
    options |= {"search.engine": engine, "search.workers": workers}
    asked = read_experiment(
        experiment or _quickstart(), set_ or (), {key: value for key, value in options.items() if value is not None}
    )
    source = open_source(asked.data)
    findings = check_leaks(source, asked, _audit(asked))
    console = open_console()
    if dry_run:
        return _dry_run(asked, source, console)
    return _search(asked, source, findings, storage, console)


def _quickstart() -> Path:
    """The quick start of this folder, or of the project that this file belongs to."""
    return QUICKSTART if QUICKSTART.exists() else Path(__file__).resolve().parents[2] / QUICKSTART


def _check(name: str, storage: str) -> int:
    """Prints a line for each fault of a study's record, and how it stands."""
    from pneumo.search.integrity import check_study
    from pneumo.tracking.store import connect_existing

    try:
        verdict = check_study(connect_existing(), name, storage)
    except _lost() as error:
        print(f"pneumo.search: the record could not be read: {describe_error(error)}", file=sys.stderr)
        return NOTHING_FIT
    for line in (*verdict.notes, *verdict.faults, verdict.said):
        print(line)
    return FAULTY if verdict.faults else OK


def _dry_run(experiment: Experiment, source: Source, console: Console) -> int:
    from pneumo.compute.disk import describe_needs
    from pneumo.console.display import Screen
    from pneumo.data.split import count_split, describe_split
    from pneumo.engines.protocol import open_engine
    from pneumo.search.preflight import disk_needs
    from pneumo.spec.candidate import Candidate
    from pneumo.spec.wording import describe_candidate

    screen = Screen(experiment, console)
    screen.say(experiment.to_yaml().rstrip())
    counts = count_split(source, experiment.data.validation, experiment.search.seed)
    screen.say(describe_split(source.description, counts, source.classes))
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(experiment, f"sqlite:///{folder}/studies.db")
        proposals = [engine.ask() for _ in range(min(DRY_RUN_CANDIDATES, experiment.search.trials))]
    screen.say("The first candidates of a new study:")
    for candidate in proposals:
        if isinstance(candidate, Candidate):
            screen.say(f"  {candidate.number}  {describe_candidate(candidate)}")
    for line in describe_needs(disk_needs(experiment, source)):
        screen.say(line)
    screen.say("Nothing was trained; leave out --dry-run to run it.")
    return OK


def _audit(experiment: Experiment) -> str:
    """The audit of the experiment's pictures, as a reader types it here."""
    command = [program_path("python"), "-m", "pneumo.data", "audit", experiment.data.path or ""]
    if experiment.data.source == "folder":
        command += ["--source", "folder"]
    if experiment.data.classes:
        command += ["--classes", ",".join(experiment.data.classes)]
    return shlex.join(command)


def _search(experiment: Experiment, source: Source, findings: Sequence[Finding], storage: str, console: Console) -> int:
    from pneumo.compute.local import LocalProcesses
    from pneumo.compute.place import PlaceError
    from pneumo.engines.study_lock import lock_study
    from pneumo.search.summary import describe_resume
    from pneumo.training import trial

    name = experiment.name
    with (
        lock_study(name, storage),
        hold_folder_lock(name, f"study {name}: another search is at work on it in this folder"),
    ):
        # The workers at once, so that they import TensorFlow while the pictures are read here.
        search = experiment.search
        place = LocalProcesses(trial.run_trial, trial.warm_up, search.workers, trial_timeout=search.trial_timeout)
        try:
            return _run(experiment, source, findings, storage, place, console)
        except KeyboardInterrupt:
            console.print(f"\nInterrupted. {describe_resume()}", markup=False, soft_wrap=True)
            return INTERRUPTED
        except PlaceError as error:
            raise RequestError(str(error)) from error
        except _lost() as error:
            with contextlib.suppress(OSError):  # where the lines go to a file on the disk that is full
                print(f"pneumo.search: {_why(error)}", file=sys.stderr)
                console.print(describe_resume(), markup=False, soft_wrap=True)
            return NOTHING_FIT
        finally:
            place.close()


def _run(
    experiment: Experiment,
    source: Source,
    findings: Sequence[Finding],
    storage: str,
    place: Place,
    console: Console,
) -> int:
    from pneumo.console.display import Screen
    from pneumo.data.split import describe_split
    from pneumo.engines.protocol import describe_storage, open_again, open_engine
    from pneumo.engines.retrying import RetryingEngine
    from pneumo.search.confirm import confirm
    from pneumo.search.flush import close, know_runs, send_left, sender_of, unsent
    from pneumo.search.loop import Study
    from pneumo.search.preflight import check_room, check_same_data, check_unchanged
    from pneumo.search.recorder import StudyRecord
    from pneumo.search.summary import summarize
    from pneumo.spec.best import confirmed_of
    from pneumo.tracking.outbox import OUTBOXES, open_outbox
    from pneumo.tracking.store import connect
    from pneumo.tracking.study import recorded

    search, screen = experiment.search, Screen(experiment, console)
    store, outbox = connect(), open_outbox(OUTBOXES / experiment.name)
    if not send_left(outbox, store, search.outage, screen):
        return unsent(outbox, store, screen, interrupted=False)
    engine = RetryingEngine(
        open_engine(experiment, storage),
        lambda: open_again(experiment, storage, engine.id),
        describe_storage(experiment, storage),
        search.outage,
        screen.say,
    )
    told, before = engine.trials(), recorded(store, experiment.name)
    check_unchanged(before, experiment, engine)
    know_runs(outbox, store, experiment.name, told)
    if (status := _has_all(experiment, store, outbox, told, before, screen)) is not None:
        return status
    check_room(experiment, source, len(told))
    data = _prepared(experiment, source, console)
    # That takes minutes, in which another machine with a storage of its own may have begun a study of this name.
    check_unchanged(recorded(store, experiment.name), experiment, engine)
    check_same_data(before, data, experiment.name, told)
    if search.from_ and not told:
        _learn(experiment, engine, store, storage, data, screen)
    screen.header(describe_split(data.description, data.counts, data.classes), store.shown, told)
    sender = sender_of(outbox, store, screen)
    record = StudyRecord(store, outbox, sender, experiment, data, engine, findings)
    study = Study(search, engine=engine, place=place, record=record, payload=record.task, screen=screen)
    with sender:
        try:
            with interruption() as interrupted:
                engine.interrupted = interrupted
                with screen:
                    ending = study.run(interrupted)
                told = engine.trials()
                ending = confirm(
                    experiment, record, told, ending, place=place, console=console, interrupted=interrupted
                )
                confirmed = confirmed_of(told, experiment, record.confirmations())
                sent = close(record, outbox, sender, told, ending, confirmed, search.outage, screen, interrupted)
            if not ending.interrupted:
                # Where the engine may propose more, --trials N with a larger N lets more of them go on.
                record.checkpoints.delete_unneeded(() if ending.exhausted else told)
        except BaseException as error:
            record.abandon(wait=not isinstance(error, KeyboardInterrupt))
            raise
    if not sent:
        return unsent(outbox, store, screen, interrupted=interrupted())
    if not ending.interrupted:
        screen.say(f"Ended: {ending.reason}.")
    return summarize(experiment, told, store, screen, ending, confirmed)


def _prepared(experiment: Experiment, source: Source, console: Console) -> Prepared:
    """Decode the pictures for the sizes of the space, with a bar."""
    from pneumo.console.display import progress_bar
    from pneumo.data.prepare import prepare

    with progress_bar("decoding pictures, once", console) as progress:
        return prepare(
            source,
            experiment.image_sizes,
            experiment.data.validation,
            experiment.search.seed,
            progress=progress,
            say=lambda line: print(line, file=sys.stderr),
        )


def _has_all(
    experiment: Experiment,
    store: Store,
    outbox: Outbox,
    told: Sequence[Trial],
    before: Recorded | None,
    screen: Screen,
) -> int | None:
    """Says how a study stands that has all its trials and confirmations already; the exit status, or None: it has not."""
    from pneumo.search.confirm import missing
    from pneumo.search.retention import remove_models
    from pneumo.search.summary import summarize
    from pneumo.spec.best import confirmed_of
    from pneumo.tracking.study import confirmations

    if len(told) < experiment.search.trials or before is None or not before.closed:
        return None
    repeated = confirmations(store, experiment.name)
    if missing(told, experiment, repeated):
        return None
    screen.say(f"Study {experiment.name} has its {len(told)} trials already; --trials N with a larger N runs more.")
    remove_models(store, outbox, experiment, told, [run_command.number for run_command in repeated])
    return summarize(experiment, told, store, screen, confirmed=confirmed_of(told, experiment, repeated))


def _learn(experiment: Experiment, engine: Engine, store: Store, storage: str, data: Prepared, screen: Screen) -> None:
    """Hands the engine what an earlier study found, and says how much of it fits."""
    from pneumo.engines.protocol import earlier_trials
    from pneumo.search.preflight import check_earlier, fitting_trials
    from pneumo.tracking.study import recorded

    name = experiment.search.from_
    assert name is not None
    trials = earlier_trials(name, storage)
    check_earlier(name, recorded(store, name), trials, data)
    fit = fitting_trials(trials, experiment)
    engine.learn(fit)
    screen.say(
        f"From study {name}: {len(fit)} of {len(trials)} trials fit this space and are learned from, not run again."
    )


def _lost() -> tuple[type[Exception], ...]:
    """What is raised where MLflow, the study's database or the disk no longer answers."""
    from pneumo.engines.protocol import storage_errors
    from pneumo.engines.retrying import OutageError
    from pneumo.spec.errors import FullDiskError
    from pneumo.tracking.store import ERRORS

    return (*ERRORS, *storage_errors(), OutageError, FullDiskError)


def _why(error: Exception) -> str:
    """Why a search was broken off, in one line."""
    from pneumo.compute import disk
    from pneumo.engines.retrying import OutageError
    from pneumo.spec.errors import FullDiskError

    if isinstance(error, FullDiskError):
        return str(error)
    what = str(error) if isinstance(error, OutageError) else f"the search ended by an error: {describe_error(error)}"
    return f"{what}; {disk.describe_full_disk(error)}" if disk.is_full_disk(error) else what


if __name__ == "__main__":
    run_command(app, "search")
