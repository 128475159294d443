"""How a study is recorded in MLflow: opened once, a run for each trial, closed with its plots and its best."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import yaml

from pneumo import __version__
from pneumo.screen import baseline_of, beyond, shown
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment, changes
from pneumo.spec.objective import OBJECTIVES, ranked
from pneumo.spec.result import Trial

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.tracking.store import Store
    from pneumo.tracking.study import End, Pictures, Recorded

MOST_LEAKS = 10
"""That the refusal of a study names."""

PARTS: tuple[Literal["training", "validation"], ...] = ("training", "validation")


def check_unchanged(recorded: Recorded | None, experiment: Experiment, engine: Engine) -> None:
    """Refuse to take up a study that began with another experiment, or whose two records do not belong together.

    Raises `RequestError` with the first differences.
    """
    name, told = experiment.name, len(engine.trials())
    if recorded is None:
        if told:
            raise RequestError(
                f"study {name}: its {told} trials are in the study's database but not in this MLflow store; "
                f"set MLFLOW_TRACKING_URI as it was, or take another --name"
            )
        return
    if recorded.tags.get("pneumo.id") != engine.id:
        raise RequestError(
            f"study {name}: MLflow has a study of this name whose trials are in another database; "
            f"give the --storage it had, or take another --name"
        )
    if not told or recorded.experiment_yaml is None:
        return
    if found := changes(yaml.safe_load(recorded.experiment_yaml), yaml.safe_load(experiment.to_yaml())):
        more = f", and {len(found) - 2} more" if len(found) > 2 else ""
        raise RequestError(
            f"study {name}: it began with another experiment: {'; '.join(found[:2])}{more}; "
            f"put it back, or take another --name"
        )


def check_same_data(recorded: Recorded | None, data: Prepared, name: str, told: Sequence[Trial]) -> None:
    """Refuse to take up a study on other pictures than it began with. Raises `RequestError`."""
    for part in PARTS:
        before = recorded.tags.get(f"pneumo.data.{part}") if recorded else None
        if told and before not in (None, data.digest(part)):
            raise RequestError(
                f"study {name}: its {part} pictures are not the ones it began with (digest was {before}, now "
                f"{data.digest(part)}: a picture was added, taken away or changed); give the same --data, or take "
                f"another --name"
            )


def audited(source: Source, experiment: Experiment, command: str) -> tuple[Finding, ...]:
    """What is known to be wrong with the pictures, before one of them is decoded.

    That is what content digests and names tell, and what a full audit found where one was made of the same content.
    Raises `RequestError` where training pictures stand in the sealed test set as well and `data.allow_leaks` does not say
    why the study may start; `command` is the audit's, as a reader types it.
    """
    from pneumo.data.audit import cheap, leaks, verdict

    full = verdict(source)
    findings = full.findings if full else cheap(source)
    found = leaks(findings)
    if found and experiment.data.allow_leaks is None:
        named = "; ".join(finding.message for finding in found[:MOST_LEAKS])
        more = f"; and {len(found) - MOST_LEAKS} more" if len(found) > MOST_LEAKS else ""
        raise RequestError(
            f"{source.description}: training and test pictures leak into each other, so a test figure would mean "
            f"nothing: {named}{more}; take them out ({command} names them all), or say in the experiment why not: "
            f"data: {{allow_leaks: REASON}}"
        )
    return findings


class StudyRecord:
    """The study's run in MLflow and those of its trials, under way. A `Record` of `pneumo.study`."""

    def __init__(
        self, store: Store, experiment: Experiment, data: Prepared, engine: Engine, findings: Sequence[Finding]
    ) -> None:
        from pneumo.tracking import study

        told = engine.trials()

        self._mlflow, self._experiment, self._data, self._findings = study, experiment, data, findings
        self._pictures = [self._part(part) for part in PARTS]
        search = experiment.search
        self._run = study.open_study(
            store,
            name=experiment.name,
            engine=search.engine,
            algorithm=search.algorithm,
            version=__version__,
            objective=search.objective,
            searched=[d.name for d in experiment.space.searched],
            experiment_yaml=experiment.to_yaml(),
            description=self._description(told),
            extra_tags={f"pneumo.data.{part}": data.digest(part) for part in PARTS}
            | {"pneumo.id": engine.id, "pneumo.pruner": search.pruner, "pneumo.data": data.kind}
            | {"pneumo.audit": self._verdict()}
            | ({"pneumo.allow_leaks": experiment.data.allow_leaks} if experiment.data.allow_leaks else {}),
        )
        found = [asdict(finding) for finding in findings]
        study.log_files(store.client, self._run.run_id, {"audit.json": json.dumps({"findings": found}, indent=1)})
        study.close_left_over(self._run, {t.result.run_id: (t.result.state, t.result.error) for t in told})

    def seed(self, number: int) -> int:
        """The seed of a trial: the study's, and one further for each trial."""
        return self._experiment.search.seed + number

    def begin(self, candidate: Candidate) -> str:
        number = candidate.number
        seed, text = self.seed(number), self._experiment.to_yaml()
        return self._mlflow.start_trial(self._run, number, candidate.hyperparameters, seed, self._pictures, text)

    def end(self, run_id: str, state: End, error: str | None = None, output: str = "") -> None:
        if output.strip():
            self._mlflow.log_files(self._run.store.client, run_id, {"output.txt": output})
        self._mlflow.end_trial(self._run, run_id, state, error)

    def close(self, told: Sequence[Trial], interrupted: bool) -> None:
        """The study's own plots, table and figures, and the end of its run."""
        best = ranked(told, self._experiment.search.objective)
        states = ("complete", "pruned", "failed")
        metrics: dict[str, float] = {f"trials_{s}": sum(t.result.state == s for t in told) for s in states}
        if best:
            metrics |= {"best_trial": best[0].number, "best_value": best[0].result.value or 0.0}
        metrics["pictures_unreadable"] = len(self._data.unreadable)
        self._mlflow.end_study(
            self._run,
            "KILLED" if interrupted else "FINISHED" if best else "FAILED",
            metrics=metrics,
            artifacts=self._artifacts(told),
            description=self._description(told),
            best_run_id=best[0].result.run_id if best else None,
        )

    def abandon(self) -> None:
        """End the study's run as killed, if MLflow can still be reached: on the way out after an error."""
        with contextlib.suppress(Exception):
            self._mlflow.end_study(self._run, "KILLED", metrics={}, artifacts={})

    def _verdict(self) -> str:
        """What the audit found, as `1 fault, 2 warnings, 4 notes`."""
        counts = Counter(finding.severity for finding in self._findings)
        return ", ".join(f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in ("fault", "warning", "note"))

    def _part(self, part: Literal["training", "validation"]) -> Pictures:
        of_part = [c for c in self._data.counts if c.part == part]
        counts = {"num_rows": sum(c.pictures for c in of_part), "patients": sum(c.patients for c in of_part)}
        counts |= {self._data.classes[c.label]: c.pictures for c in of_part}
        source = self._experiment.data.path or self._data.description
        name = f"{self._experiment.data.source} {part}"
        return self._mlflow.Pictures(part, name, self._data.digest(part), source, counts)

    def _artifacts(self, told: Sequence[Trial]) -> dict[str, str | bytes]:
        from pneumo.evidence.study_page import study_page
        from pneumo.evidence.tables import trials_csv

        if not told:
            return {}
        search = self._experiment.search
        page = study_page(
            told,
            objective=search.objective,
            direction=OBJECTIVES[search.objective],
            space=self._experiment.space,
            title=self._experiment.name,
            phantom=self._data.kind == "phantom",
        )
        return {"study.html": page, "trials.csv": trials_csv([_row(t) for t in told])}

    def _description(self, told: Sequence[Trial]) -> str:
        """The note at the head of the study's page in MLflow, Markdown."""
        search, data = self._experiment.search, self._data
        searched = ", ".join(d.name for d in self._experiment.space.searched) or "nothing"
        lines = [
            f"**{self._experiment.name}**: {search.engine}/{search.algorithm}, pruner {search.pruner}, "
            f"objective {search.objective}; searched: {searched}.",
            f"Data: {data.description}, {len(data.training):,} training and {len(data.validation):,} validation pictures.",
        ]
        if data.kind == "phantom":
            lines.append("These are generated **phantoms**, not X-rays: the figures say nothing about patients.")
        lines.append(f"Audit of the pictures: {self._verdict()} (audit.json).")
        if data_leaks := self._experiment.data.allow_leaks:
            lines.append(f"**Leaks between training and test were allowed**: {data_leaks}")
        if best := ranked(told, search.objective):
            lines.append(
                f"Best of {len(told)} trials: trial {best[0].number}, {search.objective} {shown(best[0].result.value)}."
            )
            if baseline := baseline_of(told, self._experiment):
                lines.append(beyond(best[0], baseline, search.objective))
        return "\n\n".join(lines)


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
