"""An outbox for a worker that cannot reach the study's one: it sends each operation with its files, and keeps nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.tracking.operations import DrawPlots, LogArtifacts, LogModel, Operation
from pneumo.tracking.outbox import Outbox, write_files


@dataclass(frozen=True)
class SentOperation:
    """An operation on its way to the study's outbox.

    Attributes:
        run: The run's id or key.
        operation: What to write.
        files: The contents of its files by path; None if it has no folder.
    """

    run: str
    operation: Operation
    files: Mapping[str, bytes] | None = field(default=None, repr=False)

    def append_to(self, outbox: Outbox) -> None:
        """Append the operation to the study's outbox. Raises `OSError` if the disk cannot be written."""
        if self.files is None:
            outbox.append(self.run, self.operation)
            return
        assert isinstance(self.operation, LogArtifacts | DrawPlots | LogModel)
        with outbox.append_folder(self.run, self.operation) as folder:
            write_files(folder, self.files)


@dataclass(frozen=True)
class SentOutbox:
    """Appends to an outbox on another machine: `send` takes each operation there, in order."""

    send: Callable[[SentOperation], None]

    def append(self, run: str, *operations: Operation) -> None:
        """Send operations without files."""
        for operation in operations:
            self.send(SentOperation(run, operation))

    @contextmanager
    def append_folder(self, run: str, operation: LogArtifacts | DrawPlots | LogModel) -> Iterator[Path]:
        """Yield an empty folder for the operation's files, and send both on leaving. After an error nothing is sent."""
        with tempfile.TemporaryDirectory(prefix="pneumo-operation-") as name:
            folder = Path(name)
            yield folder
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            self.send(SentOperation(run, operation, files))

    def append_files(self, run: str, files: Mapping[str, str | bytes]) -> None:
        """Send artifacts, given their contents by path in the run."""
        if files:
            with self.append_folder(run, LogArtifacts()) as folder:
                write_files(folder, files)
