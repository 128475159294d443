"""Gather the facts of a promoted model's card from its study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.promote.choose import Chosen, describe_run
from pneumo.promote.context import PromotionContext
from pneumo.promote.nominee import Nominee
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Metrics, Params
from pneumo.spec.objective import objective_metric

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.evidence.model_card import MemberFacts, ModelFacts
    from pneumo.spec.run import RecordedRun

_MEMBER_METRICS = (objective_metric("val_auc"), Metrics.VAL_STRESS_AUC, Metrics.VAL_STRESS_ACCURACY)
"""Figures that the card states of each member of an ensemble, if its run has them."""


def gather_facts(context: PromotionContext, nominee: Nominee) -> ModelFacts:
    """Return the facts that the model card states besides the metrics. Decodes no picture."""
    from pneumo.data.pictures import describe_patients
    from pneumo.evidence.intervals import interval_unit
    from pneumo.evidence.model_card import ModelFacts

    runs = nominee.chosen.runs
    experiment, source = context.experiment, context.source
    dimensions = [dimension.name for dimension in experiment.space.searched]
    warnings = []
    if experiment.data.allow_leaks:
        warnings.append(f"**Leaks between training and test were allowed**: {experiment.data.allow_leaks}")
    pictures = [*source.pictures, *source.sealed]
    return ModelFacts(
        title=f"{context.study}: {source.classes[1]} on {'phantoms' if context.phantom else 'chest X-rays'}",
        classes=source.classes,
        data=source.description,
        patients=describe_patients(pictures),
        split_unit=interval_unit(sum(not picture.known_by for picture in pictures), len(pictures)),
        parts=_parts(experiment, source),
        search=_search(context, nominee.chosen, dimensions),
        hyperparameters=_hyperparameters(runs, dimensions),
        parameters=sum(int(run.metrics[Metrics.PARAMETERS]) for run in runs),
        operating_point=_operating_point(nominee),
        phantom=context.phantom,
        warnings=warnings,
        members=_members(nominee.chosen),
    )


def _search(context: PromotionContext, chosen: Chosen, dimensions: list[str]) -> str:
    search, run = context.experiment.search, chosen.run
    origin = f", MLflow run `{run.run_id}`, trained with seed {run.parameters[Params.SEED]}"
    return (
        f"Study `{context.study}` ({search.engine}/{search.algorithm}, pruner {search.pruner}, objective "
        f"{' and '.join(search.objectives)}) searched {', '.join(dimensions) or 'nothing'}. This is {chosen.reason}"
        f"{'' if chosen.is_ensemble else origin}."
    )


def _members(chosen: Chosen) -> list[MemberFacts]:
    """Return what the card states about each member of an ensemble; nothing for a single network."""
    from pneumo.evidence.model_card import MemberFacts

    if not chosen.is_ensemble:
        return []
    return [
        MemberFacts(
            describe_run(run),
            run.run_id,
            weight,
            {name: run.metrics[name] for name in _MEMBER_METRICS if name in run.metrics},
        )
        for run, weight in zip(chosen.runs, chosen.weights, strict=True)
    ]


def _hyperparameters(runs: Sequence[RecordedRun], dimensions: Sequence[str]) -> dict[str, str]:
    """Return the values of the hyperparameters that were searched; those of several runs, if they differ, as `1 / 2 / 1`."""
    values: dict[str, str] = {}
    for name in dimensions:
        of_runs = [run.parameters.get(name, "-") for run in runs]
        if set(of_runs) != {"-"}:
            values[name] = of_runs[0] if len(set(of_runs)) == 1 else " / ".join(of_runs)
    return values


def _parts(experiment: Experiment, source: Source) -> dict[str, str]:
    """Return the pictures and patients of each part, for example `1,341 NORMAL, 3,875 PNEUMONIA, of 2,790 patients`."""
    from pneumo.data.split import Count, count_patients, count_split

    counts: dict[str, list[Count]] = {}
    for count in count_split(source, experiment.data.validation, experiment.search.seed):
        counts.setdefault(count.part, []).append(count)
    return {
        part: ", ".join(
            [*(f"{count.pictures:,} {source.classes[count.label]}" for count in of_part), *count_patients(of_part)]
        )
        for part, of_part in counts.items()
    }


def _operating_point(nominee: Nominee) -> str:
    decision = nominee.decision
    label = f"The label is {decision.classes[1]} from probability {decision.threshold:.4f} on."
    return " ".join([label, *nominee.point.sentences])
