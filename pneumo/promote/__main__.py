"""python -m pneumo.promote: take a study's best trial to the MLflow model registry if it passes the gate."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import (
    NOTHING_FIT,
    OK,
    TypedCommand,
    describe_error,
    hold_folder_lock,
    run_command,
)
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.promote.context import PromotionContext
    from pneumo.spec.experiment import Experiment
    from pneumo.tracking.promotions import PromotionRequest
    from pneumo.tracking.store import Store

RESERVED = ("challenger", "previous", "latest")
"""Aliases that `--alias` refuses."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.promote\n
  the best trial of the latest study

python -m pneumo.promote article --data chest-xray-pneumonia.zip\n
  a study whose pictures have moved

python -m pneumo.promote article --set 'promote.threshold=sensitivity>=0.95'\n
  another operating point

python -m pneumo.promote article --set promote.ensemble=4\n
  up to four of the study's networks as one model

python -m pneumo.promote article --force "the champion has seen these patients"\n
  promote even if the gate refuses

python -m pneumo.promote article --rollback\n
  give the alias champion back to the previous version

This is the only command that evaluates on the sealed test pictures. The study's run records each opening.

Exit status: 0 promoted, 2 wrong request, 3 refused by the gate or ended by an error, 130 interrupted."""
)
def main(
    typer_context: typer.Context,
    study_or_run: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY|RUN_ID",
            help="A study, or the MLflow run of one of its trials. Default: the latest study.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="The study's pictures, if they have moved.")] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model. Default: the study's name.")
    ] = None,
    alias: Annotated[str, typer.Option(metavar="ALIAS", help="Alias that the version gets if it passes.")] = "champion",
    force: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Promote even if the gate refuses. The version stores the reason."),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Give the alias back to the version that had it before.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a promote setting, as promote.floors.auc=0.8."),
    ] = None,
) -> int:
    """Evaluate a study's best trial on the sealed test pictures, and promote it if it is better than the champion.

    Without a champion it must beat the study's baseline, the tutorial's network.
    The operating point is chosen on validation pictures. Every metric has a
    95 % interval, by patient if the patients are known.
    """
    from pneumo.console.display import open_console
    from pneumo.tracking.failures import is_not_permitted
    from pneumo.tracking.promotions import find_request
    from pneumo.tracking.store import ERRORS, connect_existing

    command: TypedCommand = typer_context.obj
    _check_alias(alias)
    settings = _promote_settings(set_ or ())
    console = open_console()
    store = connect_existing()
    try:
        if rollback:
            name = _model_to_roll_back(store, study_or_run, model)
            with _hold_model_lock(name):
                return _roll_back(store, name, alias, console)
        request = find_request(store, study_or_run)
        name = model or request.study
        with _hold_model_lock(name):
            context = _make_context(store, request, settings, data, model=name, alias=alias, force=force)
            return _promote(context, console, command)
    except ERRORS as error:
        if is_not_permitted(error):
            raise RequestError(
                f"{store.display_uri}: MLflow does not let {_mlflow_user()} do this: {describe_error(error)}; ask its "
                f"administrator for the permission to read the study and to edit the registered model"
            ) from None
        print(f"pneumo.promote: ended by an error: {describe_error(error)}", file=sys.stderr)
        console.print(f"To resume, run the same command again:\n  {command}", markup=False, soft_wrap=True)
        return NOTHING_FIT
    except KeyboardInterrupt:
        console.print(
            f"\nInterrupted. To resume, run the same command again:\n  {command}",
            markup=False,
            soft_wrap=True,
        )
        raise


def _promote(context: PromotionContext, console: Console, command: TypedCommand) -> int:
    from pneumo.console.display import progress_bar, say
    from pneumo.promote.reference import CannotCompareError
    from pneumo.promote.report import print_outcome
    from pneumo.promote.steps import promote

    try:
        with progress_bar("predicting test pictures") as progress:
            outcome = promote(context, say=lambda line: say(console, line), progress=progress)
    except CannotCompareError as error:
        print(f"pneumo.promote: {error}", file=sys.stderr)
        return NOTHING_FIT
    print_outcome(outcome, context, console, force_command=str(command.with_option("--force", "REASON")))
    return OK if outcome.promotion.alias == context.alias else NOTHING_FIT


def _roll_back(store: Store, model: str, alias: str, console: Console) -> int:
    from pneumo.tracking.registry import previous_of, roll_back

    restored, replaced = roll_back(store, model, alias)
    rest = (
        f"version {replaced} is now {previous_of(alias)}"
        if replaced
        else f"no version had it, and none is {previous_of(alias)}"
    )
    console.print(f"{model}: version {restored} has the alias {alias} again; {rest}.", soft_wrap=True)
    return OK


def _make_context(
    store: Store,
    request: PromotionRequest,
    settings: Sequence[str],
    data: str | None,
    *,
    model: str,
    alias: str,
    force: str | None,
) -> PromotionContext:
    from pneumo.data.sources import open_source
    from pneumo.promote.context import PromotionContext

    experiment = _study_experiment(request, settings, data)
    source = open_source(experiment.data)
    return PromotionContext(store, request, experiment, source, model, alias, force)


def _study_experiment(request: PromotionRequest, settings: Sequence[str], data: str | None) -> Experiment:
    """Return the experiment that the study recorded, changed by `--set` and `--data`."""
    from pneumo.spec.experiment_file import parse_experiment

    text = request.recorded.experiment_yaml
    if text is None:
        raise RequestError(
            f"study {request.study}: its run has no experiment.yaml; the search was killed before its first trial"
        )
    return parse_experiment(text, f"study {request.study}", settings, {"data.path": data} if data else {})


def _model_to_roll_back(store: Store, study_or_run: str | None, model: str | None) -> str:
    """Return the name of the registered model. With `--model` alone no study is needed."""
    from pneumo.tracking.promotions import find_request

    if model and not study_or_run:
        return model
    request = find_request(store, study_or_run)
    return model or request.study


def _mlflow_user() -> str:
    """Return the name with which MLflow's client signs in, for people."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or "a user without a name (MLFLOW_TRACKING_USERNAME)"


def _hold_model_lock(model: str) -> AbstractContextManager[None]:
    file_name = re.sub(r"[^A-Za-z0-9._-]", "_", model)
    return hold_folder_lock(
        f"promote-{file_name}", f"model {model}: another promotion is running in this folder; wait for it"
    )


def _check_alias(alias: str) -> None:
    if alias in RESERVED or re.fullmatch(r"v\d+|\d+", alias) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", alias):
        raise RequestError(
            f"--alias {alias}: expected letters, digits, '-' and '_', not {', '.join(RESERVED)} or a version number"
        )


def _promote_settings(settings: Sequence[str]) -> Sequence[str]:
    """Return the settings. Raise `RequestError` if one of them is not of the `promote` block."""
    for setting in settings:
        if not setting.startswith("promote."):
            raise RequestError(
                f"--set {setting}: a promotion accepts only settings of the promote block, such as promote.gate=significant"
            )
    return settings


if __name__ == "__main__":
    run_command(app, "promote")
