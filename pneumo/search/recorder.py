"""How a study is recorded in MLflow: opened once, a run for each trial, closed with its plots and its best."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pneumo import __version__
from pneumo.search.retention import removable_models
from pneumo.spec.best import baseline_of, best_first, best_metric
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import Experiment
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import PARTS, Trial, TrialResult
from pneumo.spec.run import TrialRun
from pneumo.spec.selection import Confirmed, pareto_front, value_of
from pneumo.spec.wording import describe_confirmation, describe_gain, format_value
from pneumo.training.checkpoint_folder import CheckpointFolder
from pneumo.training.task import TrialTask

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.tracking.outbox import Outbox
    from pneumo.tracking.sender import Sender
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import DatasetPart, End, Role


class StudyRecord:
    """The study's run in MLflow and those of its trials, under way. A `Record` of `pneumo.study`.

    A run goes by its id, or by the key that it has in the outbox where MLflow did not make it at once.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sender: Sender,
        experiment: Experiment,
        data: Prepared,
        engine: Engine,
        findings: Sequence[Finding],
    ) -> None:
        from pneumo.tracking import models, study

        told = engine.trials()

        self._mlflow, self._experiment, self._data, self._findings = study, experiment, data, findings
        self._outbox, self._sender, self._engine = outbox, sender, engine
        self._pictures = [self._part(part) for part in PARTS]
        self.checkpoints = CheckpointFolder(Path("mlruns", "checkpoints", experiment.name), told)
        self._under_way: dict[str, tuple[Candidate, int | None]] = {}
        search = experiment.search
        self._run = study.open_study(
            store,
            outbox,
            name=experiment.name,
            engine=search.engine,
            algorithm=search.algorithm,
            version=__version__,
            objectives=search.objectives,
            searched=[d.name for d in experiment.space.searched],
            experiment_yaml=experiment.to_yaml(),
            description=self._description(told),
            extra_tags={f"pneumo.data.{part}": data.digest(part) for part in PARTS}
            | {"pneumo.data.test": data.test}
            | {"pneumo.id": engine.id, "pneumo.pruner": search.pruner, "pneumo.data": data.kind}
            | {"pneumo.audit": self._verdict()}
            | ({"pneumo.allow_leaks": experiment.data.allow_leaks} if experiment.data.allow_leaks else {}),
        )
        found = [asdict(finding) for finding in findings]
        outbox.append_files(self._run.run_id, {"audit.json": json.dumps({"findings": found}, indent=1)})
        study.close_left_over(self._run, {t.result.run_id: (t.result.state, t.result.error) for t in told})
        self._confirmations = study.confirmations(store, experiment.name)
        there = models.logged_models(store, experiment.name) if search.keep else {}
        self._without_model = {r for r in (t.result.run_id for t in told) if outbox.run_id(r) not in there}

    def seed(self, candidate: Candidate) -> int:
        """The seed of a trial: the study's, and one further for each trial; of a rung that of the first one below it."""
        return self._experiment.search.seed + self.checkpoints.first_trial(candidate)

    def begin(self, candidate: Candidate) -> str:
        resumed = {} if candidate.resume_from is None else {"pneumo.resumed_from": str(candidate.resume_from)}
        return self.start(candidate, self.seed(candidate), extra_tags=resumed)

    def start(
        self, candidate: Candidate, seed: int, role: Role = "trial", extra_tags: Mapping[str, str] | None = None
    ) -> str:
        """A new child run; its id, or its key where MLflow does not answer at once."""
        key = self._mlflow.start_trial(
            self._run,
            candidate.number,
            candidate.hyperparameters,
            seed,
            self._pictures,
            self._experiment.to_yaml(),
            role,
            extra_tags,
        )
        run_id = self._sender.run_id(key)
        self._under_way[run_id] = candidate, seed if role == "confirm" else None
        return run_id

    def task(self, candidate: Candidate, run_id: str, seed: int | None = None) -> TrialTask:
        """What a worker is handed for a run; `seed` is given where it trains a trial again with another one."""
        return TrialTask(
            self._experiment.name,
            candidate,
            run_id,
            self._outbox,
            self._experiment.search.objectives,
            self.seed(candidate) if seed is None else seed,
            self._data,
            continue_from=self.checkpoints.continued_path(candidate) if seed is None else None,
            checkpoint_path=self.checkpoints.own_path(candidate, seed),
        )

    def confirmations(self) -> list[TrialRun]:
        """The finished runs that trained a trial again with another seed."""
        named = [replace(run, run_id=self._id(run.run_id)) for run in self._confirmations]
        return sorted(named, key=lambda run: run.number)

    def confirmed(self, result: TrialResult, number: int, seed: int) -> None:
        """Takes note that trial `number` was trained again: MLflow, which will hold it, may be away."""
        self._confirmations.append(
            TrialRun(result.run_id, number, "FINISHED", "complete", {"seed": str(seed)}, dict(result.metrics))
        )

    def end(self, run_id: str, state: End, error: str | None = None, output: str = "") -> None:
        if output.strip():
            self._outbox.append_files(run_id, {"output.txt": output})
        self._mlflow.end_trial(self._run, run_id, state, error)
        candidate, seed = self._under_way.pop(run_id)
        if state == "killed":
            return
        self.checkpoints.delete_finished(candidate, state, seed)
        if state == "pruned":
            self._without_model.add(run_id)
        if self._experiment.search.keep:
            self._retain(self._engine.trials())

    def close(self, told: Sequence[Trial], interrupted: bool, confirmed: Sequence[Confirmed] = ()) -> None:
        """The study's own plots, tables and figures, and the end of its run.

        `confirmed`, best first, decides which trial is the best. For when all that came before has arrived: the tables name
        the runs by their ids.
        """
        self._retain(told)
        told = [replace(t, result=replace(t.result, run_id=self._id(t.result.run_id))) for t in told]
        best = best_first(told, self._experiment, confirmed)
        states = ("complete", "pruned", "failed")
        metrics: dict[str, float] = {f"trials_{s}": sum(t.result.state == s for t in told) for s in states}
        if best:
            metrics |= {"best_trial": best[0].number, "best_value": best[0].result.value or 0.0}
        if confirmed:
            ends = {"mean": confirmed[0].mean, "low": confirmed[0].low, "high": confirmed[0].high}
            metrics |= {f"confirmed_{end}": value for end, value in ends.items() if value is not None}
        metrics["pictures_unreadable"] = len(self._data.unreadable)
        self._mlflow.end_study(
            self._run,
            "KILLED" if interrupted else "FINISHED" if best else "FAILED",
            metrics=metrics,
            artifacts=self._artifacts(told, confirmed),
            description=self._description(told, confirmed),
            best_run_id=best[0].result.run_id if best else None,
        )

    def _retain(self, told: Sequence[Trial]) -> None:
        """Removes models as `search.keep` says."""
        again = [run.number for run in self._confirmations]
        for run_id, why in removable_models(self._experiment, told, again).items():
            if run_id not in self._without_model:
                self._outbox.append(run_id, "remove_model", why=why)
                self._without_model.add(run_id)

    def _id(self, run: str) -> str:
        return self._outbox.run_id(run) or run

    def abandon(self, *, wait: bool = True) -> None:
        """End the study's run as killed: on the way out after an error, or where MLflow is away.

        Without `wait` this may reach MLflow when the study is taken up only.
        """
        with contextlib.suppress(Exception):
            self._mlflow.end_study(self._run, "KILLED", metrics={}, artifacts={})
            if wait:
                self._sender.flush(0, hurry=lambda: True)

    def _verdict(self) -> str:
        """What the audit found, as `1 fault, 2 warnings, 4 notes`."""
        counts = Counter(finding.severity for finding in self._findings)
        return ", ".join(f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in ("fault", "warning", "note"))

    def _part(self, part: Literal["training", "validation"]) -> DatasetPart:
        of_part = [c for c in self._data.counts if c.part == part]
        counts = {"num_rows": sum(c.pictures for c in of_part), "patients": sum(c.patients for c in of_part)}
        counts |= {self._data.classes[c.label]: c.pictures for c in of_part}
        source = self._experiment.data.path or self._data.description
        name = f"{self._experiment.data.source} {part}"
        return self._mlflow.DatasetPart(part, name, self._data.digest(part), source, counts)

    def _artifacts(self, told: Sequence[Trial], confirmed: Sequence[Confirmed]) -> dict[str, str | bytes]:
        from pneumo.evidence.study_page import study_page
        from pneumo.evidence.tables import confirm_csv, pareto_csv, trials_csv

        if not told:
            return {}
        objectives = self._experiment.search.objectives
        page = study_page(
            told,
            objectives=objectives,
            space=self._experiment.space,
            title=self._experiment.name,
            phantom=self._data.kind == "phantom",
            confirmed=confirmed,
        )
        found: dict[str, str | bytes] = {"study.html": page, "trials.csv": trials_csv([_row(t) for t in told])}
        if len(objectives) > 1:
            found["pareto.csv"] = pareto_csv(told, objectives)
        if confirmed:
            metric = objective_metric(best_metric(self._experiment)[0])
            found["confirm.csv"] = confirm_csv([_confirmation(run, metric) for run in self.confirmations()])
        return found

    def _description(self, told: Sequence[Trial], confirmed: Sequence[Confirmed] = ()) -> str:
        """The note at the head of the study's page in MLflow, Markdown."""
        search, data = self._experiment.search, self._data
        searched = ", ".join(d.name for d in self._experiment.space.searched) or "nothing"
        lines = [
            f"**{self._experiment.name}**: {search.engine}/{search.algorithm}, pruner {search.pruner}, "
            f"{'objectives' if len(search.objectives) > 1 else 'objective'} {', '.join(search.objectives)}; "
            f"searched: {searched}.",
            f"Data: {data.description}, {len(data.training):,} training and {len(data.validation):,} validation pictures.",
        ]
        if data.kind == "phantom":
            lines.append("These are generated **phantoms**, not X-rays: the figures say nothing about patients.")
        lines.append(f"Audit of the pictures: {self._verdict()} (audit.json).")
        if data_leaks := self._experiment.data.allow_leaks:
            lines.append(f"**Leaks between training and test were allowed**: {data_leaks}")
        if best := best_first(told, self._experiment, confirmed):
            named = ", ".join(
                f"{o} {format_value(value_of(best[0].result, o, search.objectives))}" for o in search.objectives
            )
            lines.append(f"Best of {len(told)} trials: trial {best[0].number}, {named}.")
            if confirmed:
                lines.append(describe_confirmation(confirmed[0], self._experiment))
            if baseline := baseline_of(told, self._experiment):
                lines.append(describe_gain(best[0], baseline, search.objectives[0]))
        if len(search.objectives) > 1 and told:
            front = ", ".join(str(trial.number) for trial in pareto_front(told, search.objectives))
            lines.append(f"Pareto front: trials {front} (pareto.csv).")
        return "\n\n".join(lines)


def _confirmation(run: TrialRun, metric: str) -> dict[str, object]:
    seed = int(run.parameters["seed"])
    return {"trial": run.number, "seed": seed, "value": run.metrics.get(metric), "run_id": run.run_id}


def _row(trial: Trial) -> dict[str, Any]:
    result = trial.result
    row: Mapping[str, Any] = {
        "trial": trial.number,
        "state": result.state,
        "value": result.value,
        "run_id": result.run_id,
        "seconds": round(result.ended - result.started, 1),
        "error": result.error,
    }
    return {**row, **trial.candidate.hyperparameters, **result.metrics}
