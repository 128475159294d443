"""Keras Tuner as an engine: its oracles through ask and tell, without its tuners, on our journal."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.engines.journal import Journal, Proposal, finished_journal_trials, open_journal, read_journal, write_journal
from pneumo.engines.keras_tuner_oracles import build_oracle
from pneumo.engines.keras_tuner_space import decode_value, encode_values
from pneumo.engines.untried import skip_reason, split_first_candidates
from pneumo.spec.candidate import Candidate, Done, SkipReason, Wait
from pneumo.spec.experiment import Experiment
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import Trial, TrialResult


class KerasTunerEngine:
    """An `Engine` on one of Keras Tuner's oracles. Only one process may work on a study at a time.

    The oracle lives in memory. After each ask and tell, its whole state and all proposals and results are written to the
    journal in one step. The journal therefore never holds half an operation. If an operation fails, the oracle is discarded
    and built again from the journal, so that the failed operation has no effect.

    The oracle is told that a skipped proposal failed, because a value that was told twice would count twice.

    Args:
        experiment: The experiment.
        folder: Folder of the study.

    Raises:
        RequestError: The folder cannot be read and written.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._experiment = experiment
        self._space = experiment.space
        self._algorithm = experiment.search.algorithm
        self._first_candidates, self._first_skipped = split_first_candidates(experiment.first_candidates)
        self._folder = folder
        journal = open_journal(folder, experiment.to_yaml())
        self.id: str = journal.id
        self._experiment_yaml = journal.experiment
        self._proposals = journal.proposals
        self._skipped = journal.skipped
        # Candidates that an earlier process proposed and whose trials did not finish.
        self._interrupted = [p.candidate for p in journal.proposals if p.result is None]
        # The last answer without a candidate. It stays valid until a trial finishes.
        self._no_candidate: Wait | Done | None = None
        self._oracle: Any = build_oracle(experiment, journal)

    def learn(self, trials: Sequence[Trial]) -> None:
        if self._algorithm != "bayesian" or self._proposals:
            return  # the other algorithms do not use the results of earlier trials
        with self._operation() as oracle:
            if oracle.trials:
                return  # a process that was killed has learned them already
            for trial in trials:
                oracle_trial = oracle.add_trial(encode_values(self._space, trial.candidate.hyperparameters))
                self._finish(oracle, oracle_trial.trial_id, trial.result)
            self._store(oracle, (), self._skipped)

    def ask(self) -> Candidate | Wait | Done:
        if self._interrupted:
            return self._interrupted.pop(0)
        if self._no_candidate is not None:
            return self._no_candidate
        number = len(self._proposals)
        with self._operation() as oracle:
            # A proposal depends on the seed, the number and the results, but not on how often it was asked for.
            oracle.reseed(_seed(self._experiment.search.seed, number))
            tried = {proposal.candidate.key for proposal in self._proposals}
            oracle.skipped, oracle.skip_reason = [], self._rejection()
            first = next((values for key, values in self._first_candidates.items() if key not in tried), None)
            if first is not None:
                answer: Proposal | Wait | Done = self._propose_given(oracle, number, first)
            else:
                answer = self._propose(oracle, number, tried)
            proposals = (*self._proposals, answer) if isinstance(answer, Proposal) else self._proposals
            if isinstance(answer, Proposal) or oracle.skipped:
                self._store(oracle, proposals, (*self._skipped, *oracle.skipped))
            if isinstance(answer, Proposal):
                return answer.candidate
        self._no_candidate = answer
        return answer

    def report(self, number: int, epoch: int, value: float) -> bool:
        return True  # Keras Tuner prunes no trials: its Hyperband proposes short ones

    def tell(self, result: TrialResult) -> None:
        proposal = self._proposals[result.number]
        if proposal.result is not None:
            raise ValueError(f"trial {result.number} has a result already")
        with self._operation() as oracle:
            if proposal.trial is not None:
                self._finish(oracle, proposal.trial, result)
            proposals = list(self._proposals)
            proposals[result.number] = replace(proposal, result=result)
            self._store(oracle, tuple(proposals), self._skipped)
        self._no_candidate = None

    def trials(self) -> tuple[Trial, ...]:
        return finished_journal_trials(self._proposals)

    def skipped(self) -> Counter[SkipReason]:
        return Counter([*self._first_skipped, *self._skipped])

    def _propose_given(self, oracle: Any, number: int, values: Mapping[str, Value]) -> Proposal:
        """Propose these hyperparameters, which the oracle did not. It learns from them if its algorithm can."""
        candidate = Candidate(number, values, self._searched_names(values))
        if self._algorithm in ("grid", "hyperband") or not self._space.contains(values):
            return Proposal(candidate, None)
        return Proposal(candidate, oracle.add_trial(encode_values(self._space, values)).trial_id)

    def _propose(self, oracle: Any, number: int, tried: Container[object]) -> Proposal | Wait | Done:
        while True:
            trial = oracle.next()
            if trial.status == "IDLE":
                return Wait()
            if trial.status == "STOPPED":
                return Done(oracle.stop_reason())
            candidate = self._candidate(number, trial.hyperparameters.values)
            if candidate is not None:
                if (reason := skip_reason(candidate, tried)) is None:
                    return Proposal(candidate, trial.trial_id)
                oracle.skipped.append(reason)
            self._finish(oracle, trial.trial_id, None)

    def _rejection(self) -> Callable[[Mapping[str, Any]], SkipReason | None]:
        """Return a function that says why the oracle is to draw other values; its answer is None for values to train."""
        # Keras Tuner's hyperband does not use the same values for two brackets, though it would train them differently.
        # It does not know the baseline.
        earlier = (p.candidate for p in self._proposals if p.trial is not None or self._algorithm != "hyperband")
        full_trainings = [Candidate(0, {**c.hyperparameters, "epochs": c.full_epochs or c.epochs}) for c in earlier]
        tried = {training.key for training in full_trainings}
        return lambda oracle_values: skip_reason(Candidate(0, self._decode(oracle_values)), tried)

    def _decode(self, oracle_values: Mapping[str, Any]) -> dict[str, Value]:
        return self._space.draw(lambda dimension: decode_value(dimension, oracle_values[dimension.name]))

    def _candidate(self, number: int, oracle_values: Mapping[str, Any]) -> Candidate | None:
        """Return the candidate that the oracle proposes; None if it continues a failed trial."""
        values = self._decode(oracle_values)
        searched = self._searched_names(values)
        if self._algorithm != "hyperband":
            return Candidate(number, values, searched)
        rung = values | {"epochs": int(oracle_values["tuner/epochs"])}
        first_epoch, full_epochs = int(oracle_values["tuner/initial_epoch"]), int(values["epochs"])
        if "tuner/trial_id" not in oracle_values:
            return Candidate(number, rung, searched, first_epoch, None, full_epochs)
        earlier = next((p for p in self._proposals if p.trial == oracle_values["tuner/trial_id"]), None)
        if earlier is None or earlier.result is None or _oracle_value(earlier.result) is None:
            return None  # so many trials of the rung failed that one of them was selected; it has no checkpoint
        return Candidate(number, rung, searched, first_epoch, earlier.candidate.number, full_epochs)

    def _searched_names(self, values: Mapping[str, Value]) -> frozenset[str]:
        return frozenset(d.name for d in self._space.searched) & set(values)

    def _finish(self, oracle: Any, trial_id: str, result: TrialResult | None) -> None:
        value = _oracle_value(result) if result else None
        if value is None and self._algorithm == "hyperband":
            # A failed trial would leave its rung incomplete for ever, and later rungs empty. The worst value does not.
            value = -math.inf if oracle.objective.direction == "max" else math.inf
        oracle.finish(trial_id, value)

    @contextmanager
    def _operation(self) -> Iterator[Any]:
        """Yield the oracle for one operation. If that fails, discard the oracle, which is half changed and locked."""
        oracle, self._oracle = self._oracle, None
        if oracle is None:
            oracle = build_oracle(self._experiment, read_journal(self._folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Gaussian processes that do not converge, and deprecated calls
            yield oracle
        self._oracle = oracle

    def _store(self, oracle: Any, proposals: tuple[Proposal, ...], skipped: tuple[SkipReason, ...]) -> None:
        journal = Journal(self.id, self._experiment_yaml, proposals, oracle.get_state(), skipped)
        write_journal(self._folder, journal)
        self._proposals, self._skipped = proposals, skipped


def _oracle_value(result: TrialResult) -> float | None:
    """Return the value to tell the oracle; None if the trial counts as failed.

    An infinite value counts as failed too, because Keras Tuner's Gaussian process would treat it as 0.
    """
    if result.state == "failed" or result.value is None or not math.isfinite(result.value):
        return None
    return float(result.value)


def _seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
