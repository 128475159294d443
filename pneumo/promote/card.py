"""Gather the facts of a promoted model's card from its study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo.promote.choose import ChosenRun
from pneumo.promote.context import PromotionContext
from pneumo.promote.nominee import Nominee
from pneumo.spec.experiment import Experiment
from pneumo.spec.names import Metrics, Params

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.evidence.model_card import ModelFacts


def gather_facts(context: PromotionContext, nominee: Nominee) -> ModelFacts:
    """Return the facts that the model card states besides the metrics. Decodes no picture."""
    from pneumo.data.pictures import describe_patients
    from pneumo.evidence.intervals import interval_unit
    from pneumo.evidence.model_card import ModelFacts

    experiment, source, run = context.experiment, context.source, nominee.run
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
        hyperparameters={name: run.parameters[name] for name in dimensions if name in run.parameters},
        parameters=int(run.metrics[Metrics.PARAMETERS]),
        operating_point=_operating_point(nominee),
        phantom=context.phantom,
        warnings=warnings,
    )


def _search(context: PromotionContext, chosen: ChosenRun, dimensions: list[str]) -> str:
    search, run = context.experiment.search, chosen.run
    return (
        f"Study `{context.study}` ({search.engine}/{search.algorithm}, pruner {search.pruner}, objective "
        f"{' and '.join(search.objectives)}) searched {', '.join(dimensions) or 'nothing'}. This is {chosen.reason}, MLflow "
        f"run `{run.run_id}`, trained with seed {run.parameters[Params.SEED]}."
    )


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
