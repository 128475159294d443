"""python -m pneumo.promote: carry a study's best trial to the MLflow registry, if it deserves it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.console.command import (
    NOTHING_FIT,
    OK,
    TypedCommand,
    describe_error,
    hold_folder_lock,
    program_path,
    run_command,
)
from pneumo.spec.errors import RequestError

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.promote.steps import Outcome
    from pneumo.spec.experiment import Experiment
    from pneumo.tracking.promotions import Asked, Opening
    from pneumo.tracking.store import Store

MOST_OPENINGS = 5
"""That are shown."""

RESERVED = ("challenger", "previous", "latest")

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.promote\n
  the best trial of the study that was begun last

python -m pneumo.promote article --data chest-xray-pneumonia.zip\n
  of this study, whose pictures lie elsewhere now

python -m pneumo.promote article --set 'promote.threshold=sensitivity>=0.95' --set promote.floors.specificity=0.8\n
  with another operating point, and a floor

python -m pneumo.promote article --force "the champion was trained on these test patients"\n
  although the gate refuses; the reason stays on the version

python -m pneumo.promote article --rollback\n
  give champion back to the version that had it before

The test pictures are opened for this, and for nothing else; each opening is put on the study's record.
Exit status: 0 promoted; 2 the request was wrong; 3 the gate refused (the version is the challenger); 130 interrupted."""
)
def main(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY|RUN_ID",
            help="A study, or the run of one of its trials; left out: the study that was begun last.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="The study's pictures, where they lie elsewhere now.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The registered model; left out: the study's name.")
    ] = None,
    alias: Annotated[str, typer.Option(metavar="ALIAS", help="What the version is called if it passes.")] = "champion",
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Promote although the gate refuses; the reason is kept.")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Give the alias back to the version that had it before.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the promote block, as promote.gate=significant."),
    ] = None,
) -> int:
    """Judge a study's best trial on the sealed test pictures, and register it if it is better than the champion.

    Without a champion it has to beat the study's baseline, the tutorial's own network. The operating point comes from
    validation pictures; every figure has a 95 % interval, by patient.
    """
    from pneumo.console.display import open_console
    from pneumo.tracking.promotions import asked as ask
    from pneumo.tracking.store import ERRORS, connect_existing

    if force is not None and not force.strip():
        raise RequestError("--force: wants a reason, which is kept with the version")
    _check_alias(alias)
    settings = _promote_settings(set_ or ())
    console = open_console()
    command: TypedCommand = context.obj
    store = connect_existing()
    try:
        asked = ask(store, what) if what or not (rollback and model) else None
        name = model or (asked.study if asked else "")
        with hold_folder_lock(
            f"promote-{_file_name(name)}", f"model {name}: another promotion is under way here; wait for it"
        ):
            if rollback:
                return _roll_back(store, name, alias, console)
            assert asked is not None
            return _promote(store, asked, name, alias, force, data, settings, console, command)
    except ERRORS as error:
        print(f"pneumo.promote: ended by an error: {describe_error(error)}", file=sys.stderr)
        console.print(f"The same command goes on from there:\n  {command}", markup=False, soft_wrap=True)
        return NOTHING_FIT
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. The same command finishes it:\n  {command}", markup=False, soft_wrap=True)
        raise


def _promote(
    store: Store,
    asked: Asked,
    model: str,
    alias: str,
    force: str | None,
    data: str | None,
    settings: list[str],
    console: Console,
    command: TypedCommand,
) -> int:
    from pneumo.console.display import progress_bar
    from pneumo.data.sources import open_source
    from pneumo.promote.steps import promote

    experiment = _experiment(asked, settings, data)
    source = open_source(experiment.data)
    with progress_bar("judging test pictures") as progress:
        outcome = promote(
            store,
            asked,
            experiment,
            source,
            model=model,
            alias=alias,
            force=force,
            say=lambda line: console.print(line, markup=False, soft_wrap=True),
            progress=progress,
        )
    _show(outcome, store, source.kind == "phantom", force, console, command)
    return NOTHING_FIT if outcome.promotion.alias != alias else OK


def _experiment(asked: Asked, settings: list[str], data: str | None) -> Experiment:
    from pneumo.spec.experiment_file import parse_experiment

    text = asked.recorded.experiment_yaml
    if text is None:
        raise RequestError(f"study {asked.study}: its run has no experiment.yaml; it was killed before its first trial")
    return parse_experiment(text, f"study {asked.study}", settings, {"data.path": data} if data else {})


def _roll_back(store: Store, model: str, alias: str, console: Console) -> int:
    from pneumo.tracking.registry import previous_of, roll_back

    now, before = roll_back(store, model, alias)
    console.print(
        f"{model}: version {now} has the alias {alias} again; version {before} is {previous_of(alias)} now.",
        soft_wrap=True,
    )
    return OK


def _show(
    outcome: Outcome, store: Store, phantom: bool, force: str | None, console: Console, command: TypedCommand
) -> None:
    """The figures, the gate, what became of it, and what to do next."""
    from rich.table import Table

    from pneumo.evidence.model_card import name_of, shown_interval

    promotion, gate = outcome.promotion, outcome.gate

    def say(line: str, style: str = "") -> None:
        console.print(line, style=style, markup=False, soft_wrap=True)

    table = Table(
        title=f"On the test pictures, from probability {outcome.decision.threshold:.4f} on", title_justify="left"
    )
    table.add_column("figure")
    table.add_column("value", justify="right", style="bold")
    table.add_column("95 % interval, by patient", justify="right")
    for name, interval in outcome.figures.items():
        table.add_row(name_of(name), *shown_interval(interval))
    console.print(table)
    say(f"Against {gate.against}:" if gate.auc_difference else f"Against nothing: {gate.against}.")
    for check in gate.checks:
        say(f"  {'passed ' if check.passed else 'refused'}  {check.said}", "" if check.passed else "red")
    _say_openings(outcome.openings, outcome.elsewhere, say)
    if promotion.alias == "challenger":
        say(f"Refused: version {promotion.version} of {promotion.model} is registered as challenger, not more.", "bold")
        say(f"To promote it all the same:  {command.with_option('--force', 'REASON')}")
        return
    forced = f", by force: {promotion.forced}" if promotion.forced else ""
    replaced = f"; version {promotion.replaced} is previous now" if promotion.replaced else ""
    say(f"Promoted: version {promotion.version} of {promotion.model} is {promotion.alias}{forced}{replaced}.", "bold")
    if force and not promotion.forced:
        say("The gate passed, so --force was not needed; its reason is not kept.")
    if phantom:
        say("It was trained and judged on generated phantoms: its figures say nothing about patients.")
    uri = f"models:/{promotion.model}@{promotion.alias}"
    where = "" if store.default else f"MLFLOW_TRACKING_URI={shlex.quote(store.shown)} "
    say(f"Predict:    {where}{program_path('python')} -m pneumo.predict PICTURE --model {uri}")
    say(f"Serve:      {where}{_on_path()}mlflow models serve -m {uri} --env-manager local --port 5001")
    say(f"Roll back:  {where}{program_path('python')} -m pneumo.promote --model {promotion.model} --rollback")


def _say_openings(openings: list[Opening], elsewhere: int, say: Callable[..., None]) -> None:
    say(f"The test pictures were opened {len(openings)} time{'s' if len(openings) > 1 else ''} for this study:")
    if len(openings) > MOST_OPENINGS:
        say("  ...")
    for opening in openings[-MOST_OPENINGS:]:
        say(f"  {opening.at} by {opening.who}, for run {opening.run_id}")
    looks = len(openings) + elsewhere
    if looks > 1:
        others = f" ({elsewhere} of them for other studies)" if elsewhere else ""
        say(
            f"Warning: these test pictures have been looked at {looks} times{others}. Each look that has a say in what is "
            f"promoted makes the figures above look better than they will be on new patients.",
            "yellow",
        )


def _check_alias(alias: str) -> None:
    if alias in RESERVED or re.fullmatch(r"v\d+|\d+", alias) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", alias):
        raise RequestError(
            f"--alias {alias}: wants letters, digits, '-' and '_', and none of {', '.join(RESERVED)} or a version's number"
        )


def _promote_settings(settings: list[str] | tuple[str, ...]) -> list[str]:
    for setting in settings:
        if not setting.startswith("promote."):
            raise RequestError(
                f"--set {setting}: a promotion changes the promote block alone, as promote.gate=significant"
            )
    return list(settings)


def _file_name(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", model)


def _on_path() -> str:
    """What `mlflow models serve` wants in front of it: it calls another program of this environment by its bare name."""
    folder = program_path("mlflow").rpartition("/")[0]
    return f"PATH={shlex.quote(folder)}:$PATH " if folder else ""


if __name__ == "__main__":
    run_command(app, "promote")
