"""Print what a replay trains, what differs from the record before it starts, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.console.display import say
from pneumo.spec.names import Params, Tags
from pneumo.spec.wording import describe_candidate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pneumo.replay.compare import Change, Comparison, MetricPair
    from pneumo.spec.candidate import Candidate
    from pneumo.tracking.recorded import RecordedTraining


def describe_trial(recorded: RecordedTraining, candidate: Candidate) -> str:
    """Return one line with the trial, its hyperparameters, its seed and its epochs."""
    role = "" if recorded.run.role == "trial" else " (confirmation)"
    hyperparameters = describe_candidate(candidate) or "no searched hyperparameters"
    return (
        f"Trial {recorded.run.number} of study {recorded.run.study}{role}: {hyperparameters}; "
        f"seed {recorded.run.parameters[Params.SEED]}; {_describe_epochs(recorded, candidate)}"
    )


def print_changes(changes: Sequence[Change], console: Console) -> None:
    """Print what differs from the record, or that nothing does."""
    if not changes:
        say(console, "Data, code, libraries, device and threads are the same as in the record.")
        return
    say(console, "Different from the record, or not recorded:")
    for change in changes:
        consequence = "; the metrics will differ" if change.certain else ""
        say(console, f"  {change.what}: {change.recorded} → {change.now}{consequence}")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table of the metrics, a table of the speed, and the result in a sentence."""
    console.print(_metrics_table(comparison))
    console.print(_speed_table(comparison.speed))
    seconds = comparison.speed[0]
    say(
        console,
        f"The epochs took {seconds.replayed:.1f} s with deterministic operations; the record has {seconds.recorded:.1f} s "
        f"(ratio {seconds.ratio:.2f}).",
    )
    different = comparison.different
    if not different:
        say(console, "Every metric is equal to the last bit.")
        return
    largest = max(different, key=lambda pair: pair.distance)
    say(
        console,
        f"{len(different)} of {len(comparison.metrics)} metrics differ; the largest difference is {largest.distance:.3g}: "
        f"{largest.name}{f' ({largest.where})' if largest.where else ''}.",
    )


def _describe_epochs(recorded: RecordedTraining, candidate: Candidate) -> str:
    last, full = len(recorded.epochs), candidate.full_epochs or candidate.epochs
    epochs = f"{last} epoch{'' if last == 1 else 's'}" if last == full else f"epochs 1 to {last} of {full}"
    if recorded.run.state == "pruned":
        epochs += ", then pruned"
    elif last < candidate.epochs:
        epochs += ", then stopped early"
    if continued := recorded.run.tags.get(Tags.RESUMED_FROM):
        epochs += f" (recorded as a continuation of trial {continued})"
    return epochs


def _metrics_table(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    compared = f"{comparison.epochs} epochs and {comparison.common_pictures:,} validation pictures in common"
    table = Table(title=f"Largest differences, over {compared}", title_justify="left")
    table.add_column("metric")
    table.add_column("where", overflow="fold")
    for column in ("recorded", "replayed", "difference"):
        table.add_column(column, justify="right")
    for pair in comparison.metrics:
        difference = "0" if pair.equal else f"{pair.replayed - pair.recorded:+.3g}"
        cells = (f"{pair.recorded:.8g}", f"{pair.replayed:.8g}", difference)
        table.add_row(pair.name, Text(pair.where), *cells, style="" if pair.equal else "yellow")
    return table


def _speed_table(speed: Sequence[MetricPair]) -> Table:
    from rich.table import Table

    table = Table(title="Speed, not compared", title_justify="left")
    for column in ("metric", "where"):
        table.add_column(column)
    for column in ("recorded", "replayed", "ratio"):
        table.add_column(column, justify="right")
    for pair in speed:
        cells = (f"{pair.recorded:.4g}", f"{pair.replayed:.4g}", f"{pair.ratio:.2f}")
        table.add_row(pair.name, pair.where, *cells)
    return table
