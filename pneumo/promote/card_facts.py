"""What a promoted model's card tells, gathered from its study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo.spec.experiment import Experiment

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.evidence.model_card import ModelFacts
    from pneumo.spec.run import TrialRun
    from pneumo.tracking.promotions import Asked
    from pneumo.tracking.served import Decision


def facts(
    asked: Asked, experiment: Experiment, source: Source, run: TrialRun, why: str, decided: Decision
) -> ModelFacts:
    """The facts of the card of a trial's network. Decodes nothing."""
    from pneumo.evidence.model_card import ModelFacts

    search = experiment.search
    names = [dimension.name for dimension in experiment.space.searched]
    searched = {name: run.parameters[name] for name in names if name in run.parameters}
    found = (
        f"Study `{asked.study}` ({search.engine}/{search.algorithm}, pruner {search.pruner}, for "
        f"{' and '.join(search.objectives)}) searched {', '.join(names) or 'nothing'}. This is {why}, MLflow run "
        f"`{run.run_id}`, trained with seed {run.parameters['seed']}."
    )
    warnings = []
    if experiment.data.allow_leaks:
        warnings.append(f"**Leaks between training and test were allowed**: {experiment.data.allow_leaks}")
    return ModelFacts(
        title=f"{asked.study}: {source.classes[1]} on {'phantoms' if decided.phantom else 'chest X-rays'}",
        classes=source.classes,
        data=source.description,
        parts=_parts(experiment, source),
        search=found,
        hyperparameters=searched,
        parameters=int(run.metrics["parameters"]),
        operating_point=_operating(experiment, decided),
        phantom=decided.phantom,
        warnings=warnings,
    )


def _parts(experiment: Experiment, source: Source) -> dict[str, str]:
    from pneumo.data.split import count_split

    held: dict[str, list[str]] = {}
    patients: dict[str, int] = {}
    for count in count_split(source, experiment.data.validation, experiment.search.seed):
        held.setdefault(count.part, []).append(f"{count.pictures:,} {source.classes[count.label]}")
        patients[count.part] = patients.get(count.part, 0) + count.patients
    return {part: f"{', '.join(each)}, of {patients[part]:,} patients" for part, each in held.items()}


def _operating(experiment: Experiment, decided: Decision) -> str:
    rule = experiment.promote.threshold
    how = "as the experiment says" if isinstance(rule, int | float) else f"found on validation pictures: {rule}"
    scaled = (
        "" if decided.temperature == 1 else f" Probabilities are scaled by the temperature {decided.temperature:.3f}."
    )
    return f"From {decided.threshold:.4f} on ({how}) it says {decided.classes[1]}.{scaled}"
