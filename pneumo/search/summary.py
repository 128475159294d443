"""How a search ends: what it says of the study, what to do next, the exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.console.command import INTERRUPTED, NOTHING_FIT, OK, drop_option, program_path
from pneumo.console.display import Screen
from pneumo.spec.experiment import Experiment
from pneumo.spec.masking import masked
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmed
from pneumo.spec.sources import GENERATED_SOURCES
from pneumo.spec.stopping import common_cause

if TYPE_CHECKING:
    from pneumo.search.loop import Ending
    from pneumo.tracking.store import Store


def summarize(
    experiment: Experiment,
    told: Sequence[Trial],
    store: Store,
    screen: Screen,
    ending: Ending | None = None,
    confirmed: Sequence[Confirmed] = (),
) -> int:
    """Says how the study stands and what to do next; the exit status."""
    fit = any(t.result.state == "complete" for t in told)
    if fit:
        screen.table(told, confirmed)
    if ending and ending.interrupted:
        screen.say(f"Interrupted; everything so far is kept. {describe_resume()}")
        return INTERRUPTED
    if ending and ending.broken:
        print(f"pneumo.search: {ending.reason}", file=sys.stderr)
        screen.say(f"When that is mended, t{describe_resume()[1:]}")
        return NOTHING_FIT
    if not fit:
        errors = [t.result.error for t in told if t.result.error]
        cause = f"; most often: {common_cause(errors)[0]}" if errors else ""
        what = (
            f"none of {len(told)} trials completed{cause}"
            if told
            else f"no trial was begun: {ending and ending.reason}"
        )
        print(f"pneumo.search: {what}", file=sys.stderr)
        return NOTHING_FIT
    screen.say(f"Compare the trials:  {_compare(store, experiment.name)}")
    if experiment.data.source in GENERATED_SOURCES:
        from pneumo.data.sources import FETCHES

        screen.say(
            "These were generated phantoms, not X-rays. Real pictures, with a Kaggle token or, smaller, without any:"
        )
        for fetch in FETCHES:
            screen.say(f"  {shlex.join([program_path('python'), '-m', 'pneumo.data', 'fetch', fetch])}")
    elif ending is None or not ending.exhausted:
        screen.say(
            f"Search further:      {_command(*drop_option(sys.argv[1:], '--trials'), '--trials', str(2 * len(told)))}"
        )
    screen.say(f"Promote the best:    {shlex.join([program_path('python'), '-m', 'pneumo.promote', experiment.name])}")
    return OK


def describe_resume() -> str:
    return f"This goes on where it stopped:\n  {_command(*sys.argv[1:])}"


def _command(*arguments: str) -> str:
    """A search as a reader types it here; a password in a database's address is left out."""
    return shlex.join([program_path("python"), "-m", "pneumo.search", *map(masked, arguments)])


def _compare(store: Store, name: str) -> str:
    """How to see a study in MLflow: the command and the address, or the address of the server."""
    from pneumo.tracking.study import experiment_id
    from pneumo.tracking.views import study_page_address

    address = study_page_address(experiment_id(store, name))
    if store.uri.startswith("http"):
        return store.shown.rstrip("/") + address
    where = "" if store.default else f" --backend-store-uri {shlex.quote(store.shown)}"
    return f"{shlex.quote(program_path('mlflow'))} ui{where}    and open http://127.0.0.1:5000{address}"
