"""What is refused before a study starts or is taken up: pictures that leak, another experiment, other pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pneumo.compute import disk
from pneumo.compute.footprint import Bytes, pictures_bytes, trials_bytes
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment, setting_changes
from pneumo.spec.objective import values_of
from pneumo.spec.result import PARTS, Trial

if TYPE_CHECKING:
    from pneumo.data.audit import Finding
    from pneumo.data.pictures import Source
    from pneumo.data.prepare import Prepared
    from pneumo.engines.protocol import Engine
    from pneumo.tracking.study import Recorded

MOST_LEAKS = 10
"""That the refusal of a study names."""


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
    if found := setting_changes(yaml.safe_load(recorded.experiment_yaml), yaml.safe_load(experiment.to_yaml())):
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


def check_leaks(source: Source, experiment: Experiment, command: str) -> tuple[Finding, ...]:
    """What is known to be wrong with the pictures, before one of them is decoded.

    That is what content digests and names tell, and what a full audit found where one was made of the same content.
    Raises `RequestError` where training pictures stand in the sealed test set as well and `data.allow_leaks` does not say
    why the study may start; `command` is the audit's, as a reader types it.
    """
    from pneumo.data.audit import last_audit, leaks, quick_findings

    full = last_audit(source)
    findings = full.findings if full else quick_findings(source)
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


def fitting_trials(trials: Sequence[Trial], experiment: Experiment) -> list[Trial]:
    """The complete trials of an earlier study that this one can learn from: its space holds them, their values are known."""
    return [
        trial
        for trial in trials
        if trial.result.state == "complete"
        and values_of(trial.result, experiment.search.objectives) is not None
        and experiment.space.holds(trial.candidate.hyperparameters)
    ]


def check_earlier(name: str, recorded: Recorded | None, trials: Sequence[Trial], data: Prepared) -> None:
    """Refuse to learn from a study that is not there, or that judged by other pictures. Raises `RequestError`."""
    if not trials:
        raise RequestError(f"search.from: there is no study {name!r} with finished trials in this storage")
    before = recorded.tags.get("pneumo.data.validation") if recorded else None
    if before != data.digest("validation"):
        raise RequestError(
            f"search.from: study {name} chose by other validation pictures (digest {before}, here "
            f"{data.digest('validation')}), so its values cannot be compared; give the same data, validation and seed"
        )


def check_room(experiment: Experiment, source: Source, told: int) -> None:
    """Says where the study may not fit on the disk. Raises `RequestError` where it cannot."""
    for line in disk.check_space(disk_needs(experiment, source, told)):
        print(line, file=sys.stderr)


def disk_needs(experiment: Experiment, source: Source, told: int = 0) -> list[disk.Need]:
    """What the study is still to write, and where."""
    from pneumo.data.cache import cache_root
    from pneumo.data.prepare import sizes_to_decode

    decoded = pictures_bytes(len(source.pictures), sizes_to_decode(source, experiment.image_sizes))
    disk_needs = [disk.Need(cache_root(), Bytes("decoded pictures", decoded, decoded))]
    models, *others = trials_bytes(experiment, told)
    # A server keeps models where it likes; while it is away, they lie here.
    served = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    return disk_needs + [disk.Need(Path("mlruns"), one) for one in ([] if served else [models]) + others]
