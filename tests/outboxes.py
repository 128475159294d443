"""What an outbox holds, taken to a real MLflow."""

from __future__ import annotations

from pneumo.tracking.outbox import Outbox
from pneumo.tracking.sender import Sender
from pneumo.tracking.store import Store


def send(outbox: Outbox, store: Store) -> None:
    """Delivers all of it; MLflow takes each."""
    said: list[str] = []
    with Sender(outbox, store, say=said.append, complain=said.append) as sender:
        assert sender.flush(0), said
    assert said == []


def sent(outbox: Outbox, store: Store, run: str) -> str:
    """Delivers all of it; the id of a run that was made by a key."""
    send(outbox, store)
    found = outbox.run_id(run)
    assert found is not None
    return found
