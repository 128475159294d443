"""The file that holds a study with Keras Tuner.

Keras Tuner saves an oracle as one file for its own state and one file for each trial. It rewrites several of them, in
place, in one operation, so a killed process can leave truncated or contradictory files. The journal holds the same
states (`get_state()` of the oracle and of each of its trials), together with all proposals and results, in one file. It is
written to a temporary file that then replaces the old one. After a kill, the folder holds the state before or after an
operation, never something in between.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo.spec.candidate import Candidate, SkipReason
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment_file import is_same_experiment
from pneumo.spec.result import Trial, TrialResult

FILE = "pneumo.json"
"""Name of the journal in a study's folder."""


@dataclass(frozen=True)
class Proposal:
    """A candidate that was proposed, and its result.

    Attributes:
        candidate: The candidate.
        trial: Id of the oracle's own trial; None if the oracle does not know the candidate.
        result: The result; None while the trial is under way.
    """

    candidate: Candidate
    trial: str | None
    result: TrialResult | None = None


@dataclass(frozen=True)
class Journal:
    """The state of a study.

    Attributes:
        id: Random id of the study.
        experiment: The resolved experiment as YAML text.
        proposals: All proposals, ordered by number.
        oracle: State of the oracle; None before the first proposal.
        skipped: Why the oracle's other proposals were not trained, in their order.
    """

    id: str
    experiment: str
    proposals: tuple[Proposal, ...] = ()
    oracle: Mapping[str, Any] | None = None
    skipped: tuple[SkipReason, ...] = ()


def open_journal(folder: Path, experiment: str) -> Journal:
    """Return the study in a folder, or create one.

    A study without finished trials is created again, with the same id, if its experiment has changed.

    Args:
        folder: Folder of the study.
        experiment: The resolved experiment as YAML text.

    Raises:
        RequestError: The folder cannot be read and written.
    """
    journal = read_journal(folder)
    has_results = journal is not None and any(proposal.result for proposal in journal.proposals)
    if journal is None or (not has_results and not is_same_experiment(journal.experiment, experiment)):
        journal = Journal(journal.id if journal else uuid.uuid4().hex, experiment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Write the journal even if it did not change: a folder that cannot be written shall be found before the first trial.
        write_journal(folder, journal)
    except OSError as error:
        raise RequestError(f"--storage: {folder}: cannot be written: {error.strerror or error}") from None
    return journal


def read_journal(folder: Path) -> Journal | None:
    """Return the study in a folder; None if there is none. Raise `RequestError` if it cannot be read."""
    path = folder / FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        proposals = tuple(_proposal_from_json(entry) for entry in state["proposals"])
        return Journal(state["id"], state["experiment"], proposals, state["oracle"], tuple(state.get("skipped", ())))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"--storage: {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"--storage: {path}: is not the state of a study: {error}") from None


def write_journal(folder: Path, journal: Journal) -> None:
    """Replace the study's state in a folder. Raise `OSError` if that fails; the old state then remains."""
    state = {
        "id": journal.id,
        "experiment": journal.experiment,
        "proposals": [_proposal_to_json(proposal) for proposal in journal.proposals],
        "oracle": journal.oracle,
        "skipped": journal.skipped,
    }
    temporary = folder / f"{FILE}.part"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(state))
        file.flush()
        os.fsync(file.fileno())  # without it, a power failure could leave the new name without its content
    temporary.replace(folder / FILE)


def finished_journal_trials(proposals: tuple[Proposal, ...]) -> tuple[Trial, ...]:
    """Return the trials that have a result, ordered by number."""
    return tuple(Trial(proposal.candidate, proposal.result) for proposal in proposals if proposal.result)


def _proposal_to_json(proposal: Proposal) -> dict[str, Any]:
    candidate = vars(proposal.candidate) | {"searched": sorted(proposal.candidate.searched)}
    result = proposal.result.to_json() if proposal.result else None
    return {"candidate": candidate, "trial": proposal.trial, "result": result}


def _proposal_from_json(entry: Mapping[str, Any]) -> Proposal:
    candidate = Candidate(**entry["candidate"] | {"searched": frozenset(entry["candidate"]["searched"])})
    result = TrialResult.from_json(entry["result"]) if entry["result"] else None
    return Proposal(candidate, entry["trial"], result)
