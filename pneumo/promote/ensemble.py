"""Choose the members of an ensemble among the study's complete runs and confirmations, from validation pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pneumo.promote.choose import Chosen, describe_run, rank_runs
from pneumo.promote.context import PromotionContext
from pneumo.promote.operating_point import NO_STRESS, PICTURES
from pneumo.promote.validation import ValidationPredictions, average, on_same_pictures, read_validation_predictions
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Params, Tags
from pneumo.spec.promotion import ChosenOn
from pneumo.spec.wording import count_of

if TYPE_CHECKING:
    from pneumo.spec.run import RecordedRun


@dataclass(frozen=True, eq=False)
class _Library:
    """The runs that may be members, what they predicted, and the pictures that decide."""

    runs: Sequence[RecordedRun]
    predictions: Sequence[ValidationPredictions]
    on: ChosenOn
    remarks: Sequence[str]


def choose_ensemble(context: PromotionContext, runs: Sequence[RecordedRun]) -> Chosen:
    """Return the members that `promote.ensemble` asks for, with their weights.

    A number asks for up to so many of the complete trials and confirmations within the bounds of the `promote` block, picked
    as `pick_members` says. `seeds` asks for the confirmations of the best trial, with equal weights. Only runs whose models
    are kept can be members.

    Args:
        context: The promotion.
        runs: All runs of the study's trials.

    Returns:
        The members, by their own log loss; or one run, if there is no other, or none that improves it.

    Raises:
        RequestError: The request names a run, no run can be a member, or the runs were judged on different pictures.
    """
    from pneumo.evidence.ensemble import log_losses, pick_members

    asked = context.experiment.promote.ensemble
    if context.request.run_id:
        raise RequestError(
            f"{context.request.run_id}: promote.ensemble: {asked} takes runs of the whole study, not one that is named; give "
            f"the study {context.study}, or --set promote.ensemble=null"
        )
    library = _library(context, _candidates(context, runs))
    labels, _ = library.predictions[0].of(library.on)
    probabilities = np.stack([predictions.of(library.on)[1] for predictions in library.predictions])
    picked = (
        list(range(len(library.runs))) if asked == "seeds" else pick_members(labels, probabilities, int(asked or 1))
    )
    losses = log_losses(labels, probabilities)
    members = sorted(set(picked), key=lambda row: (losses[row], row))
    weights = tuple(picked.count(row) / len(picked) for row in members)
    chosen, best = [library.runs[row] for row in members], losses[members[0]]
    where = f"on {PICTURES[library.on]} validation pictures"
    if len(members) == 1:
        why = "no other can be a member" if len(library.runs) == 1 else "no other lowers the loss"
        reason = f"{describe_run(chosen[0])} alone, since {why}, log loss {best:.4f} {where}"
        return Chosen.single(chosen[0], reason, tuple(library.remarks))
    mean = average([library.predictions[row] for row in members], weights)
    loss = float(log_losses(labels, mean.of(library.on)[1][None])[0])
    of_all = f"{len(members)} of {len(library.runs)} runs" if asked != "seeds" else f"{len(members)} confirmations"
    reason = f"an ensemble of {of_all}, log loss {loss:.4f} {where}, its best member alone {best:.4f}"
    listed = [
        f"  weight {weight:.3f}: {describe_run(run)}, log loss {losses[row]:.4f}"
        for run, weight, row in zip(chosen, weights, members, strict=True)
    ]
    return Chosen(tuple(chosen), weights, reason, (*library.remarks, *listed))


def _candidates(context: PromotionContext, runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """Return the complete runs that may be members, by number and seed, whether or not their models are kept."""
    from pneumo.tracking.study import confirmations

    study, experiment = context.study, context.experiment
    again = confirmations(context.store, study)
    complete, ranking, _ = rank_runs(study, experiment, runs, again)
    if experiment.promote.ensemble == "seeds":
        best = ranking[0].number
        candidates = [run for run in again if run.number == best]
        if not candidates:
            raise RequestError(
                f"study {study}: promote.ensemble: seeds takes the confirmations of the best trial, {best}, and it has none; "
                f"search.confirm trains them"
            )
    else:
        allowed = {trial.number for trial in ranking}
        candidates = [run for run in (*complete.values(), *again) if run.number in allowed]
    return sorted(candidates, key=lambda run: (run.number, run.role == "confirm", int(run.parameters[Params.SEED])))


def _library(context: PromotionContext, candidates: Sequence[RecordedRun]) -> _Library:
    """Return the candidates whose models are kept and that have predictions for the pictures that decide."""
    from pneumo.tracking.models import logged_models

    remarks = []
    models = logged_models(context.store, context.study)
    kept = [run for run in candidates if run.run_id in models and Tags.MODEL_REMOVED not in run.tags]
    if len(kept) < len(candidates):
        missing = count_of(len(candidates) - len(kept), "run")
        remarks.append(f"{missing} of {len(candidates)} cannot be members, because their models were not kept.")
    if not kept:
        raise RequestError(
            f"study {context.study}: promote.ensemble: none of {count_of(len(candidates), 'run')} has a model any more"
        )
    predictions = [read_validation_predictions(context, run) for run in kept]
    on = context.experiment.promote.on
    stressed = [row for row, each in enumerate(predictions) if each.stress is not None]
    if on == "stress" and not stressed:
        on = "validation"
        remarks.append(f"The members are chosen on plain validation pictures, because {NO_STRESS}.")
    elif on == "stress" and len(stressed) < len(kept):
        without = count_of(len(kept) - len(stressed), "run")
        remarks.append(f"{without} of {len(kept)} cannot be members: {NO_STRESS} for them.")
        kept, predictions = [kept[row] for row in stressed], [predictions[row] for row in stressed]
    predictions = on_same_pictures(predictions, [describe_run(run) for run in kept])
    return _Library(kept, predictions, on, remarks)
