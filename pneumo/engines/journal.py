"""What a study with Keras Tuner keeps: one file in the study's folder, always whole.

Keras Tuner saves an oracle as one file for its own state and one for each trial. It writes them in place, several of them
in one operation, so a process that is killed can leave files that are torn or contradict each other. Here the same states,
`get_state()` of the oracle and of each of its trials, lie in one file with our own record of what was proposed and told. It is
written beside the old one and moved in its place: a kill leaves the state before an operation or the state after it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.result import Trial, TrialResult

FILE = "pneumo.json"


@dataclass(frozen=True)
class Proposal:
    """A candidate that was asked, and what came of it so far.

    `trial` is the id of the oracle's own trial; None where the oracle has no part in it.
    """

    candidate: Candidate
    trial: str | None
    result: TrialResult | None = None


@dataclass(frozen=True)
class Journal:
    """A study's state. `experiment` is resolved YAML, `proposals` are by number, `oracle` is None before the first ask."""

    id: str
    experiment: str
    proposals: tuple[Proposal, ...] = ()
    oracle: Mapping[str, Any] | None = None


def open_journal(folder: Path, experiment: str) -> Journal:
    """The study of this folder, or a new one; one in which nothing was told yet is made anew if the experiment changed.

    Raises `RequestError` where the folder cannot be read and written.
    """
    journal = read_journal(folder)
    if journal is None or (journal.experiment != experiment and not any(p.result for p in journal.proposals)):
        journal = Journal(journal.id if journal else uuid.uuid4().hex, experiment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Also what was just read: better to fail here than after the first trial.
        write_journal(folder, journal)
    except OSError as error:
        raise RequestError(f"--storage: {folder}: cannot be written: {error.strerror or error}") from None
    return journal


def read_journal(folder: Path) -> Journal | None:
    """The study of this folder; None where there is none. Raises `RequestError` where it cannot be read."""
    path = folder / FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        proposals = tuple(_proposal(entry) for entry in state["proposals"])
        return Journal(state["id"], state["experiment"], proposals, state["oracle"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"--storage: {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"--storage: {path}: is not the state of a study: {error}") from None


def write_journal(folder: Path, journal: Journal) -> None:
    """Puts the study's state in the place of what the folder holds. Raises `OSError`; the old state then stands."""
    state = {
        "id": journal.id,
        "experiment": journal.experiment,
        "proposals": [_entry(proposal) for proposal in journal.proposals],
        "oracle": journal.oracle,
    }
    part = folder / f"{FILE}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(state))
        file.flush()
        os.fsync(file.fileno())  # a power failure could else leave a name and no bytes
    part.replace(folder / FILE)


def finished_journal_trials(proposals: tuple[Proposal, ...]) -> tuple[Trial, ...]:
    """The trials that have a result."""
    return tuple(Trial(proposal.candidate, proposal.result) for proposal in proposals if proposal.result)


def _entry(proposal: Proposal) -> dict[str, Any]:
    candidate = vars(proposal.candidate) | {"searched": sorted(proposal.candidate.searched)}
    result = proposal.result.to_json() if proposal.result else None
    return {"candidate": candidate, "trial": proposal.trial, "result": result}


def _proposal(entry: Mapping[str, Any]) -> Proposal:
    candidate = Candidate(**entry["candidate"] | {"searched": frozenset(entry["candidate"]["searched"])})
    result = TrialResult.from_json(entry["result"]) if entry["result"] else None
    return Proposal(candidate, entry["trial"], result)
