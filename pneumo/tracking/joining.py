"""Join writes into one run, so that MLflow is called less often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pneumo.tracking.operations import LogBatch
from pneumo.tracking.outbox import QueuedOperation

MOST_METRICS, MOST_TAGS = 900, 90
"""Most metrics and tags of a joined write. MLflow takes 1,000 metrics, parameters and tags together, and 100 tags."""

LONGEST_TAGS = 200_000
"""Most letters of the tags of a joined write. A request to MLflow may have a million."""


def join(queued: Iterable[QueuedOperation], name: Callable[[str], str]) -> list[list[QueuedOperation]]:
    """Return operations in groups, each of which is one call of MLflow. The order within each run stays.

    A group has one operation, or several `LogBatch` of one run between which the run has no other operation.

    Args:
        queued: The operations, in order.
        name: Returns the one name of a run that goes by its id or its key.
    """
    groups: list[list[QueuedOperation]] = []
    open_groups: dict[str, list[QueuedOperation]] = {}  # of each run the last one, if more can join it
    for operation in queued:
        run = name(operation.run)
        group = open_groups.get(run)
        if group and _can_join(group, operation):
            group.append(operation)
            continue
        groups.append(group := [operation])
        open_groups[run] = group
    return groups


def joined(group: Sequence[QueuedOperation]) -> QueuedOperation:
    """Return a group as one operation. Of several values of a tag the last one counts."""
    if len(group) == 1:
        return group[0]
    batches = [queued.operation for queued in group if isinstance(queued.operation, LogBatch)]
    tags = {name: value for batch in batches for name, value in batch.tags.items()}
    metrics = [point for batch in batches for point in batch.metrics]
    return replace(group[0], operation=replace(batches[0], metrics=metrics, tags=tags))


def _can_join(group: Sequence[QueuedOperation], later: QueuedOperation) -> bool:
    batches = [queued.operation for queued in (*group, later) if isinstance(queued.operation, LogBatch)]
    if len(batches) <= len(group) or batches[-1].params:
        return False  # a parameter that has another value already is refused, and nothing else must be with it
    names = {(name, value) for batch in batches for name, value in batch.tags.items()}
    return (
        batches[0].of_model == batches[-1].of_model
        and sum(len(batch.metrics) for batch in batches) <= MOST_METRICS
        and len(names) <= MOST_TAGS
        and sum(len(value) for _, value in names) <= LONGEST_TAGS
    )
