"""The steps of a search, in order: open the study, prepare its pictures, train, close it, say how it stands."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pneumo.compute import disk
from pneumo.compute.place import Place, PlaceError, PlaceOutageError
from pneumo.compute.workers import count_trainings
from pneumo.console.command import INTERRUPTED, NOTHING_FIT, describe_error, hold_folder_lock
from pneumo.console.display import progress_bar, say
from pneumo.console.signals import Interruption
from pneumo.search.confirm import confirm_best, missing_confirmations
from pneumo.search.flush import Flush
from pneumo.search.loop import TrainingLoop
from pneumo.search.places import PlacePlan, plan_place
from pneumo.search.preflight import (
    audit_command,
    check_common_folder,
    check_databases,
    check_disk,
    check_earlier_study,
    check_same_data,
    check_same_experiment,
    check_same_study,
    check_shared,
    usable_trials,
)
from pneumo.search.recorder import Sharing, StudyRecorder
from pneumo.search.request import OpenStudy, SearchOutcome, SearchRequest
from pneumo.search.schedule import Study
from pneumo.search.screen import TrialListener, show_header
from pneumo.search.summary import say_resume, summarize
from pneumo.spec.best import rank_confirmed_trials
from pneumo.spec.errors import FullDiskError, RequestError
from pneumo.spec.selection import Confirmation
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.data.prepare import Prepared
    from pneumo.engines.shared_study import Driver
    from pneumo.tracking.sender import Sender


def run_search(request: SearchRequest) -> int:
    """Run the search, or resume it, and return the exit status.

    Raises:
        RequestError: The study cannot be run as it was asked for.
    """
    from pneumo.engines.shared_study import join_study
    from pneumo.engines.study_lock import lock_study

    name, command, console = request.experiment.name, request.command, request.console
    check_databases(request.storage)
    search = request.experiment.search
    check_shared(search, request.storage)
    check_common_folder(request.experiment.compute)
    plan = plan_place(request.experiment, request.ray)
    refusal = f"study {name}: another search in this folder works on it; wait for it, or choose another --name"
    if search.shared:
        refusal += "; searches that share a study have a folder each, and --workers N trains N trials at a time in one"
    held = join_study(name, request.storage, search.takeover) if search.shared else lock_study(name, request.storage)
    with held as driver, hold_folder_lock(name, refusal):
        # The first worker starts at once, so that it imports TensorFlow while the study is opened here.
        place = plan.open()
        try:
            return _run_steps(replace(request, experiment=plan.experiment), place, plan, driver)
        except KeyboardInterrupt:
            say_resume(console, "\nInterrupted.", command)
            return INTERRUPTED
        except PlaceError as error:
            raise RequestError(str(error)) from error
        except service_errors() as error:
            with contextlib.suppress(OSError):  # standard output may be a file on the full disk
                print(f"pneumo.search: {_describe_failure(error)}", file=sys.stderr)
                say_resume(console, "", command)
            return NOTHING_FIT
        finally:
            place.close()


def service_errors() -> tuple[type[Exception], ...]:
    """Return what is raised if MLflow, the study's database or the disk fails."""
    from pneumo.engines.engine_table import storage_errors
    from pneumo.engines.retrying import OutageError
    from pneumo.tracking.store import ERRORS

    return (*ERRORS, *storage_errors(), OutageError, PlaceOutageError, FullDiskError)


def _run_steps(request: SearchRequest, place: Place, plan: PlacePlan, driver: Driver | None) -> int:
    experiment, command, console = request.experiment, request.command, request.console
    interruption, flush = Interruption(), _open_flush(request)
    if not flush.send_left_over():
        return flush.report_unsent(command, interrupted=False)
    study = _open_study(request, flush, interruption, driver)
    if (confirmed := _confirmed_if_complete(study, request)) is not None:
        return summarize(
            experiment,
            flush.with_run_ids(study.finished_trials),
            study.store,
            command,
            console,
            request.source.classes,
            confirmed=confirmed,
            skipped=study.engine.skipped(),
        )
    finished = len(study.finished_trials)
    place.start(experiment.search.trials - finished)  # they import TensorFlow while the pictures are prepared here
    data, is_cached = _prepare(request, study)
    show_header(
        console,
        experiment,
        _describe_data(data, is_cached=is_cached),
        study.store.display_uri,
        study.finished_trials,
        request.findings,
        audit_command(experiment),
    )
    say(console, plan.describe(count_trainings(experiment, finished)))
    outcome = _train(request, study, data, place, interruption)
    if not outcome.is_sent:
        return study.flush.report_unsent(command, interrupted=interruption())
    if not outcome.ending.interrupted:
        say(console, f"Ended: {outcome.ending.reason}.")
    if outcome.left_to:
        say(console, f"The study is left to the other searches ({outcome.left_to}); the last of them closes it.")
    return summarize(
        experiment,
        flush.with_run_ids(outcome.finished_trials),
        study.store,
        command,
        console,
        request.source.classes,
        outcome.ending,
        outcome.confirmed,
        outcome.skipped,
    )


def _open_flush(request: SearchRequest) -> Flush:
    """Connect to MLflow and open the study's outbox.

    Raises:
        RequestError: MLflow cannot be reached.
    """
    from pneumo.tracking.outbox import OUTBOXES, open_outbox
    from pneumo.tracking.store import connect

    store = connect()  # first, so that a wrong address leaves no outbox behind
    outbox = open_outbox(OUTBOXES / request.experiment.name)
    return Flush(outbox, store, request.experiment.search.outage, request.console)


def _open_study(request: SearchRequest, flush: Flush, interruption: Interruption, driver: Driver | None) -> OpenStudy:
    """Open the study's engine and read its record.

    Raises:
        RequestError: The study began with another experiment, or its two records are not of one study.
    """
    from pneumo.engines.engine_table import describe_storage, open_engine, reopen_engine
    from pneumo.engines.retrying import RetryingEngine
    from pneumo.tracking.study import read_study

    experiment, storage = request.experiment, request.storage
    engine = RetryingEngine(
        open_engine(experiment, storage, driver),
        lambda: reopen_engine(experiment, storage, engine.id, driver),
        describe_storage(experiment, storage),
        experiment.search.outage,
        lambda line: say(request.console, line),
        interruption,
        lambda: driver.lost if driver else (),
    )
    finished_trials, record = engine.trials(), read_study(flush.store, experiment.name, engine.id)
    check_same_study(flush.store, record, experiment.name, engine, len(finished_trials))
    check_same_experiment(record, experiment, len(finished_trials))
    flush.remember_run_ids(experiment.name, finished_trials)
    return OpenStudy(engine, flush, finished_trials, record, driver)


def _confirmed_if_complete(study: OpenStudy, request: SearchRequest) -> list[Confirmation] | None:
    """Return the confirmed trials if the study has all its trials and confirmations, None if something is to be trained."""
    from pneumo.search.retention import remove_models
    from pneumo.tracking.study import confirmations

    experiment, finished_trials = request.experiment, study.finished_trials
    if len(finished_trials) < experiment.search.trials or study.recorded is None or not study.recorded.closed:
        return None
    runs = confirmations(study.store, experiment.name)
    if missing_confirmations(finished_trials, experiment, runs):
        return None
    say(
        request.console,
        f"Study {experiment.name} has its {count_of(len(finished_trials), 'trial')} already; --trials N with a larger N runs "
        "more.",
    )
    remove_models(study.store, study.flush.outbox, experiment, finished_trials, [run.number for run in runs])
    return rank_confirmed_trials(finished_trials, experiment, runs)


def _prepare(request: SearchRequest, study: OpenStudy) -> tuple[Prepared, bool]:
    """Decode the pictures, and let a new study learn from an earlier one. Return them, and whether they were in the cache.

    Raises:
        RequestError: The disk is too small, or the pictures are not those that the study began with.
    """
    from pneumo.data.prepare import prepare
    from pneumo.tracking.study import read_study

    experiment, finished = request.experiment, len(study.finished_trials)
    check_disk(experiment, request.source, finished)
    with progress_bar("decoding pictures, once", request.console) as progress:
        data = prepare(
            request.source,
            experiment.image_sizes,
            experiment.data.validation,
            experiment.search.seed,
            progress=progress,
            say=lambda line: print(line, file=sys.stderr),
        )
    # Decoding takes minutes. Meanwhile another machine, with a database of its own, may have begun a study of this name.
    record = read_study(study.store, experiment.name, study.engine.id)
    check_same_study(study.store, record, experiment.name, study.engine, finished)
    check_same_data(record, data, experiment.name, finished)
    if experiment.search.from_ and not finished:
        _learn(request, study, data, experiment.search.from_)
    return data, not progress.was_used


def _learn(request: SearchRequest, study: OpenStudy, data: Prepared, earlier: str) -> None:
    """Let the engine learn from the earlier study's trials that fit the space."""
    from pneumo.engines.engine_table import read_finished_trials
    from pneumo.tracking.study import read_study

    trials = read_finished_trials(earlier, request.storage)
    check_earlier_study(earlier, read_study(study.store, earlier), trials, data)
    usable = usable_trials(trials, request.experiment)
    study.engine.learn(usable)
    say(
        request.console,
        f"From study {earlier}: {len(usable)} of {len(trials)} trials fit this space. The search learns from them and does "
        "not run them again.",
    )


def _describe_data(data: Prepared, *, is_cached: bool) -> str:
    from pneumo.data.split import describe_split

    description = describe_split(data.description, data.counts, data.classes, data.patients_known)
    return description + ("\n  decoded by an earlier command, and read from the cache" if is_cached else "")


def _train(
    request: SearchRequest, study: OpenStudy, data: Prepared, place: Place, interruption: Interruption
) -> SearchOutcome:
    """Run the trials and the confirmations, and close the study's record."""
    experiment, console, engine, flush = request.experiment, request.console, study.engine, study.flush
    driver, search = study.driver, experiment.search
    with flush.sender() as sender:
        recorder, elapsed = _open_record(request, study, data, sender)
        left_to: str | None = None
        try:
            with interruption:
                latest_end = max((trial.result.ended for trial in study.finished_trials), default=0.0)
                read_trials = engine.trials if driver else None
                with TrialListener(experiment, console, study.finished_trials, read_trials) as listener:
                    schedule = Study(search, engine, elapsed)
                    loop = TrainingLoop(
                        schedule, place, recorder, listener, latest_end, search.retries, recorder.is_recorded
                    )
                    ending = loop.run(interruption)
                trials, skipped = engine.trials(), engine.skipped()
                is_sent, confirmed = True, []
                if driver:
                    is_sent = flush.wait(sender, interruption)
                    left_to = driver.leave()
                    if is_sent:
                        trials, skipped = engine.trials(), engine.skipped()
                        flush.remember_run_ids(experiment.name, trials)
                        if left_to is None:
                            recorder.take_over(trials)
                if left_to is None and is_sent:
                    ending = confirm_best(
                        experiment, recorder, trials, ending, place=place, console=console, interrupted=interruption
                    )
                    confirmed = rank_confirmed_trials(trials, experiment, recorder.confirmations())
                    # The study's tables name the runs by their ids, so all earlier writes have to arrive first.
                    is_sent = flush.wait(sender, interruption)
                    if is_sent:
                        recorder.close(trials, ending, confirmed, skipped)
                        is_sent = flush.wait(sender, interruption)
                    else:
                        recorder.abandon()
                elif left_to is None:
                    recorder.abandon()
            # Other searches that are at work need theirs, if the folder is common. If the engine may propose more, a later
            # search with more trials may continue any of them.
            if not ending.interrupted and (left_to is None or not experiment.compute.shared):
                recorder.checkpoints.delete_unneeded(() if ending.exhausted else trials)
        except BaseException as error:
            if left_to is None and _is_last(driver):
                recorder.abandon(wait=not isinstance(error, KeyboardInterrupt))
            raise
    return SearchOutcome(ending, trials, confirmed, skipped, is_sent, left_to)


def _open_record(
    request: SearchRequest, study: OpenStudy, data: Prepared, sender: Sender
) -> tuple[StudyRecorder, float]:
    """Open the study's run. Return its recorder, and the seconds of the budget's time that are over.

    Searches that share the study do this one after the other, so that they have one run.
    """
    from pneumo.tracking.study import read_study

    driver, store, flush = study.driver, study.store, study.flush
    with driver.turn() if driver else contextlib.nullcontext():
        sharing = Sharing(driver.others() is None, driver.elapsed) if driver else None
        if sharing and not sharing.is_alone:
            record = read_study(store, request.experiment.name, study.engine.id)
            check_same_data(record, data, request.experiment.name, finished=1)
        recorder = StudyRecorder(
            store, flush.outbox, sender, request.experiment, data, study.engine, request.findings, sharing
        )
    return recorder, sharing.elapsed if sharing else 0.0


def _is_last(driver: Driver | None) -> bool:
    """Return whether no other search is at work on the study, after an error."""
    try:
        return driver is None or driver.leave() is None
    except Exception:  # it would hide the first error
        return False


def _describe_failure(error: Exception) -> str:
    """Return why a search was broken off, in one line."""
    from pneumo.engines.retrying import OutageError

    if isinstance(error, FullDiskError | PlaceOutageError):
        return str(error)
    text = str(error) if isinstance(error, OutageError) else f"the search ended by an error: {describe_error(error)}"
    return f"{text}; {disk.describe_full_disk(error)}" if disk.is_full_disk(error) else text
