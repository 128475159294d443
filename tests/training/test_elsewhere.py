"""What travels with a trial to a machine that shares no disk with the search, and what comes back. No process is started."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo.compute.place import Ended, Task
from pneumo.compute.ray_worker import Sent
from pneumo.data.prepare import Prepared
from pneumo.spec.candidate import Candidate
from pneumo.tracking.operations import DrawPlots, LogArtifacts, LogBatch
from pneumo.tracking.outbox import Outbox, open_outbox
from pneumo.tracking.sent_outbox import SentOperation, SentOutbox
from pneumo.training.elsewhere import CheckpointCourier, DistantTask, DistantTrials, SentCheckpoint
from pneumo.training.task import TrialTask

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


class Place:
    """A place that keeps what it is given, and returns the events that a test puts into `events`."""

    def __init__(self) -> None:
        self.events: deque[object] = deque()
        self.payloads: list[DistantTask] = []
        self.puts = 0

    def put(self, value: Any) -> Callable[[], Any]:
        self.puts += 1
        return lambda: value

    def submit(self, task: Task) -> None:
        self.payloads.append(task.payload)

    def next_event(self, timeout: float) -> object:
        return self.events.popleft() if self.events else None


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return open_outbox(tmp_path / "outbox")


@pytest.fixture
def task(tmp_path: Path, outbox: Outbox) -> TrialTask:
    np.save(tmp_path / "2.npy", PIXELS)
    part = np.array([0], np.int64)
    data = Prepared(
        "phantom",
        "",
        ("a", "b", "c"),
        np.zeros(3, np.uint8),
        ("a", "b", "c"),
        ("",) * 3,
        part,
        part,
        (),
        (),
        "",
        (2,),
        tmp_path,
    )
    checkpoint = str(tmp_path / "checkpoints" / "trial-0000.npz")
    return TrialTask("s", Candidate(0, {}), "run", outbox, ("val_auc",), 0, data, checkpoint_path=checkpoint)


def submitted(place: Place, *tasks: TrialTask, shared: bool = False) -> DistantTrials:
    trials = DistantTrials(place, has_shared_cache=shared)  # type: ignore[arg-type]
    for number, task in enumerate(tasks):
        trials.submit(Task(number, task))
    return trials


def test_what_a_distant_trial_records_is_stored_before_its_end(task: TrialTask, outbox: Outbox) -> None:
    place, sent = Place(), list[SentOperation]()
    trials = submitted(place, task)
    worker = SentOutbox(sent.append)
    worker.append("run", LogBatch(tags={"a": "1"}))
    worker.append_files("run", {"history.csv": "epoch\n", "plots/roc.png": b"\x89PNG"})
    worker.append_files("run", {})
    with worker.append_folder("run", DrawPlots()) as folder:
        (folder / "values.npz").write_bytes(b"values")
    with pytest.raises(OSError, match="full"), worker.append_folder("run", LogArtifacts()):
        raise OSError("full")
    place.events.extend(Sent(0, message) for message in sent)
    place.events.append(Ended(0, "result"))
    assert trials.next_event(1.0) == Ended(0, "result")
    batch, plots = outbox.first(9)
    assert (batch.run, batch.operation, batch.folder) == ("run", LogBatch(tags={"a": "1"}, metrics=[]), None)
    assert plots.operation == LogArtifacts()
    assert plots.folder is not None
    assert (plots.folder / "history.csv").read_text() == "epoch\n"
    assert (plots.folder / "plots" / "roc.png").read_bytes() == b"\x89PNG"
    drawn = outbox.first_to_draw()
    assert drawn is not None
    assert drawn.folder is not None
    assert (drawn.folder / "values.npz").read_bytes() == b"values"
    assert outbox.remaining() == 3


def test_a_file_that_leads_out_of_the_run_is_not_stored(task: TrialTask, outbox: Outbox) -> None:
    place = Place()
    trials = submitted(place, task)
    place.events.append(Sent(0, SentOperation("run", LogArtifacts(), {"../a": b""})))
    with pytest.raises(ValueError, match="leads out of the run"):
        trials.next_event(1.0)
    assert outbox.remaining() == 0


def test_a_checkpoint_travels_to_the_search_and_back(task: TrialTask) -> None:
    place = Place()
    trials = submitted(place, task)
    assert place.payloads[0].own is None
    place.events.append(Sent(0, SentCheckpoint(b"after epoch 3")))
    assert trials.next_event(0.0) is None
    assert task.checkpoint_path is not None
    assert Path(task.checkpoint_path).read_bytes() == b"after epoch 3"
    trials.submit(Task(1, task))
    assert place.payloads[1].own == b"after epoch 3"


@pytest.mark.parametrize(("shared", "puts"), [(False, 2), (True, 1)])
def test_the_pictures_are_stored_once_for_all_trials(
    task: TrialTask, *, shared: bool, puts: int, tmp_path: Path
) -> None:
    place = Place()
    submitted(place, task, task, task, shared=shared)
    assert place.puts == puts
    assert place.payloads[0].task.data is None
    data = place.payloads[2].data()
    if not shared:
        (tmp_path / "2.npy").unlink()  # as on a machine that does not have it
    assert (data.pixels(2) == PIXELS).all()


def test_a_new_checkpoint_is_sent_and_the_last_one_if_it_is_needed(tmp_path: Path) -> None:
    path, sent = tmp_path / "own.npz", list[bytes]()
    path.write_bytes(b"from the search")
    courier = CheckpointCourier(path, sent.append)
    with courier.running():
        replace(path, b"new")
        courier.finish(with_last=True)
        assert sent == [b"new"]
        replace(path, b"newer")
        courier.finish(with_last=False)
    assert sent == [b"new"]


def replace(path: Path, content: bytes) -> None:
    temporary = path.with_name("tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
