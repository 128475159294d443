"""Print the outcome of a promotion."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from pneumo.console.command import program_path

if TYPE_CHECKING:
    from rich.console import Console

    from pneumo.promote.context import PromotionContext
    from pneumo.promote.steps import PromotionOutcome
    from pneumo.spec.promotion import Promotion
    from pneumo.tracking.store import Store

Say = Callable[..., None]
"""Prints a line of text; a Rich style is optional."""

MOST_OPENINGS = 5
"""Largest number of openings to list; the latest ones are listed."""


def print_outcome(outcome: PromotionOutcome, context: PromotionContext, console: Console, force_command: str) -> None:
    """Print metrics, the gate, the openings, what became of the model, and the next commands.

    Args:
        outcome: What to print.
        context: The promotion.
        console: Where to print.
        force_command: The command that promotes a refused model anyway.
    """

    from rich.text import Text

    from pneumo.console import display

    def say(line: str, style: str = "") -> None:
        display.say(console, Text(line, style))

    def say_command(line: str) -> None:
        display.say_command(console, line)

    _print_metrics(outcome, context, console)
    _print_gain(outcome, say)
    _print_gate(outcome, say)
    _print_openings(outcome, say)
    promotion = outcome.promotion
    if promotion.alias == "challenger":
        gets = "has" if outcome.from_record else "gets"
        say(f"Refused: version {promotion.version} of {promotion.model} {gets} only the alias challenger.", "bold")
        say_command(f"To promote it anyway:  {force_command}")
        return
    _print_promoted(promotion, say, from_record=outcome.from_record)
    if context.force_reason and not promotion.forced:
        say("The gate passed, so --force was not needed. Its reason is not stored.")
    if context.phantom:
        say("The model was trained and evaluated on generated phantoms: its metrics say nothing about patients.")
    _print_next_commands(promotion, context.store, say_command, can_roll_back=outcome.can_roll_back)


def _print_metrics(outcome: PromotionOutcome, context: PromotionContext, console: Console) -> None:
    from rich.table import Table

    from pneumo.evidence.intervals import interval_unit
    from pneumo.evidence.model_card import figure_label, format_interval

    title = f"On the test pictures, at threshold {outcome.nominee.decision.threshold:.4f}"
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right", style="bold")
    test = context.source.sealed
    unit = interval_unit(sum(not picture.known_by for picture in test), len(test))
    table.add_column(f"95 % interval, {unit}", justify="right")
    for name, interval in outcome.evidence.metrics.items():
        table.add_row(figure_label(name), *format_interval(interval))
    console.print(table)


def _print_gain(outcome: PromotionOutcome, say: Say) -> None:
    from pneumo.evidence.model_card import describe_gain

    if outcome.evidence.gain:
        say(describe_gain(outcome.evidence.gain))


def _print_gate(outcome: PromotionOutcome, say: Say) -> None:
    gate = outcome.evidence.gate
    say(f"Compared with {gate.against}:" if gate.auc_difference else f"Compared with nothing: {gate.against}.")
    for check in gate.checks:
        say(f"  {'passed ' if check.passed else 'refused'}  {check.message}", "" if check.passed else "red")


def _print_openings(outcome: PromotionOutcome, say: Say) -> None:
    openings, elsewhere = outcome.openings, outcome.openings_elsewhere
    say(f"This study opened the test pictures {len(openings)} time{'s' if len(openings) > 1 else ''}:")
    if len(openings) > MOST_OPENINGS:
        say("  ...")
    for opening in openings[-MOST_OPENINGS:]:
        say(f"  {opening.at} by {opening.who}, for run {opening.run_id}")
    total = len(openings) + elsewhere
    if total > 1:
        other_studies = f" ({elsewhere} of them by other studies)" if elsewhere else ""
        say(
            f"Warning: these test pictures were opened {total} times{other_studies}. Each opening that influences what is "
            f"promoted makes the metrics above better than they will be on new patients.",
            "yellow",
        )


def _print_promoted(promotion: Promotion, say: Say, *, from_record: bool) -> None:
    verb = "Already promoted" if from_record else "Promoted"
    forced = f", forced: {promotion.forced}" if promotion.forced else ""
    replaced = f"; version {promotion.replaced} is now previous" if promotion.replaced else ""
    say(f"{verb}: version {promotion.version} of {promotion.model} is {promotion.alias}{forced}{replaced}.", "bold")


def _print_next_commands(promotion: Promotion, store: Store, say_command: Say, *, can_roll_back: bool) -> None:
    uri = f"models:/{promotion.model}@{promotion.alias}"
    python = program_path("python")
    environment = "" if store.default else f"MLFLOW_TRACKING_URI={shlex.quote(store.display_uri)} "
    say_command(f"Predict:    {environment}{python} -m pneumo.predict PICTURE --model {uri}")
    say_command(
        f"Serve:      {environment}{_path_variable()}mlflow models serve -m {uri} --env-manager local --port 5001"
    )
    if can_roll_back:
        alias = "" if promotion.alias == "champion" else f" --alias {promotion.alias}"
        say_command(f"Roll back:  {environment}{python} -m pneumo.promote --model {promotion.model}{alias} --rollback")


def _path_variable() -> str:
    """Return the `PATH=` that `mlflow models serve` needs: it starts another program of this environment by its bare name."""
    folder = program_path("mlflow").rpartition("/")[0]
    return f"PATH={shlex.quote(folder)}:$PATH " if folder else ""
