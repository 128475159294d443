"""Draw the plots of a study, of any engine, as one page of HTML."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from plotly.offline import get_plotlyjs

from pneumo.evidence.confirmation import CONFIRMATION_EXPLANATION, confirmation_figure, confirmation_sentences
from pneumo.evidence.pareto import FRONT_EXPLANATION, axis_settings, front_table, pareto_figure
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES, epoch_metric, epoch_objective
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation, metric_value
from pneumo.spec.space import Choice, Searched, Space
from pneumo.spec.wording import describe_stress

# Okabe and Ito's palette, which colour-blind readers can distinguish (Color Universal Design, 2008).
_STATE_STYLES = {"COMPLETE": ("complete", "#0072B2"), "PRUNED": ("pruned", "#E69F00"), "FAIL": ("failed", "#D55E00")}

_FEW_TRIALS = 20
"""Number of complete trials below which importances are unreliable."""


def study_page(
    trials: Sequence[Trial],
    *,
    objectives: Sequence[str],
    space: Space,
    title: str = "Study",
    phantom: bool = False,
    confirmed: Sequence[Confirmation] = (),
    best: Trial | None = None,
) -> str:
    """Return the page: history, hyperparameter importances, parallel coordinates, epochs and timeline.

    The plots are those of `optuna.visualization`. With several objectives the Pareto front comes first, and history and
    importances are drawn for each objective. If a plot cannot be drawn yet, a sentence gives the reason; no trial makes
    this function raise.

    All plots are on one page, because MLflow opens it in a sandbox without network where no second file can be loaded.
    Plotly's script of 4.8 MB is therefore included once instead of once for each plot.

    Args:
        trials: The finished trials.
        objectives: Names among `OBJECTIVES`.
        space: The search space.
        title: Heading of the page.
        phantom: Whether the pictures are phantoms, which the heading then says.
        confirmed: Trials that were trained again; their values are of the first objective.
        best: The best trial, whose figures on the stress suite the heading states.

    Returns:
        HTML.
    """
    with _silence_optuna():
        sections = "".join(_sections(trials, objectives, space, confirmed))
    heading = html.escape(title + (" (phantoms)" if phantom else ""))
    counts = ", ".join(
        f"{sum(t.result.state == state for t in trials)} {state}" for state in ("complete", "pruned", "failed")
    )
    directions = "; ".join(f"{objective}, {OBJECTIVES[objective]}" for objective in objectives)
    return _PAGE.format(
        title=heading,
        script=get_plotlyjs(),
        summary=html.escape(f"{len(trials)} trials: {counts}. Objective{'s' * (len(objectives) > 1)}: {directions}."),
        notes=_paragraphs([*_stress_notes(best), *_omission_notes(trials, space)]),
        sections=sections,
    )


def _sections(
    trials: Sequence[Trial], objectives: Sequence[str], space: Space, confirmed: Sequence[Confirmation]
) -> Iterator[str]:
    """Yield the sections of the page, in order."""
    first, several = objectives[0], len(objectives) > 1
    # Optuna's plots show the best value so far, and which direction is better, only for a study with one objective.
    studies = {objective: _optuna_study(trials, objectives, [objective], space) for objective in objectives}
    if several:
        plot = pareto_figure(_optuna_study(trials, objectives, objectives, space), objectives)
        names = [dimension.name for dimension in space.searched]
        yield _section("Pareto front", FRONT_EXPLANATION, plot, front_table(trials, objectives, names))
    if confirmed:
        plot, sentences = confirmation_figure(confirmed, first), confirmation_sentences(confirmed, first)
        yield _section("Confirmation", CONFIRMATION_EXPLANATION, plot, _paragraphs(sentences))
    for heading, explanation, draw in _OBJECTIVE_SECTIONS:
        for objective, study in studies.items():
            text = explanation if objective == first else ""  # not repeated for each objective
            yield _section(f"{heading}: {objective}" if several else heading, text, draw(study, objective))
    study = studies[first]
    yield _section("Parallel coordinates", _PARALLEL_EXPLANATION, _parallel(study, first))
    yield _section(
        "Objective by epoch", _EPOCHS_EXPLANATION, _by_epoch(study, epoch_metric(epoch_objective(objectives)))
    )
    yield _section("Timeline", "When each trial ran and how it ended.", _timeline(study))


def _history(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete_trials(study)
    if not complete:
        return "No trial is complete yet."
    figure = optuna.visualization.plot_optimization_history(study, target_name=objective)
    figure.update_xaxes(title="trial", dtick=_tick_step(complete[-1].number))
    return figure.update_yaxes(title=objective, **axis_settings([trial.values[0] for trial in complete]))


def _importances(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete_trials(study)
    names = {name for trial in complete for name in trial.params}
    if len(complete) < 2:
        return "Importances need at least two complete trials."
    if len(names) < 2:
        return "Importances need at least two searched hyperparameters."
    if len({trial.value for trial in complete}) < 2:
        return f"All complete trials have the same {objective}, so no importances can be computed."
    try:
        figure = optuna.visualization.plot_param_importances(study, target_name=objective)
    except (ValueError, RuntimeError) as error:
        return f"Optuna cannot compute importances from these trials: {error}"
    figure.update_xaxes(title=f"share of importance for {objective}", range=[0, 1.1])
    return figure.update_yaxes(title="")


def _parallel(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete_trials(study)
    names = sorted({name for trial in complete for name in trial.params})
    if len(complete) < 2:
        return "Parallel coordinates need at least two complete trials."
    if not names:
        return "No hyperparameter is searched."
    figure = optuna.visualization.plot_parallel_coordinate(study, names, target_name=objective)
    figure.update_traces(opacity=0.9, line_width=1.8, selector={"mode": "lines"})
    return figure.update_annotations(font_size=11, bgcolor="rgba(255, 255, 255, 0.75)")


def _by_epoch(study: optuna.Study, objective: str) -> go.Figure | str:
    epochs = [epoch for trial in study.get_trials(deepcopy=False) for epoch in trial.intermediate_values]
    if not epochs:
        return f"No trial has recorded {objective} after an epoch."
    figure = optuna.visualization.plot_intermediate_values(study)
    figure.update_xaxes(title="epoch", dtick=_tick_step(max(epochs)))
    return figure.update_yaxes(title=objective)


def _timeline(study: optuna.Study) -> go.Figure | str:
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return "No trial is finished yet."
    figure = optuna.visualization.plot_timeline(study)
    figure.data = [
        bars for bars in figure.data if bars.name in _STATE_STYLES
    ]  # without the trials that fill gaps in the numbers
    for bars in figure.data:
        bars.name, bars.marker.color = _STATE_STYLES[bars.name]
        bars.hovertemplate = "%{text}<extra></extra>"
    figure.update_xaxes(title="time (UTC)")
    return figure.update_yaxes(title="trial", dtick=_tick_step(len(trials)))


def _tick_step(last: int) -> int:
    """Return the distance between about ten ticks at whole numbers."""
    return max(1, math.ceil(last / 10))


_OBJECTIVE_SECTIONS: tuple[tuple[str, str, Callable[[optuna.Study, str], go.Figure | str]], ...] = (
    ("Optimization history", "The value of each complete trial, and the best value so far.", _history),
    (
        "Hyperparameter importances",
        "How much each hyperparameter influences whether a trial is among the better ones (PED-ANOVA, Watanabe et al., "
        f"IJCAI 2023). With fewer than about {_FEW_TRIALS} complete trials the order is unreliable.",
        _importances,
    ),
)

_PARALLEL_EXPLANATION = "Each line is a complete trial. None marks a hyperparameter that does not apply to the trial."
_EPOCHS_EXPLANATION = "Each line is a trial. A line that ends early is of a trial that was pruned or failed."


def _section(heading: str, explanation: str, plot: go.Figure | str, below: str = "") -> str:
    """Return a section of the page. `below` is HTML that follows the plot; the other texts are escaped."""
    if isinstance(plot, str):
        body = f'<p class="none">{html.escape(plot)}</p>'
    else:
        plot.update_layout(template="plotly_white", title=None, margin={"t": 40, "b": 60}, font={"size": 13})
        body = plot.to_html(
            full_html=False, include_plotlyjs=False, default_height="460px", config={"displayModeBar": False}
        )
    return f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(explanation)}</p>{body}{below}</section>"


def _paragraphs(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def _optuna_study(
    trials: Sequence[Trial], objectives: Sequence[str], selected: Sequence[str], space: Space
) -> optuna.Study:
    """Return the trials as an Optuna study in memory.

    Args:
        trials: The finished trials.
        objectives: The objectives of the study that ran.
        selected: The objectives of the study to return, among `objectives`.
        space: The search space.
    """
    study = optuna.create_study(directions=[OBJECTIVES[objective] for objective in selected])
    searched = {dimension.name: dimension for dimension in space.searched}
    trials_with_params = [
        (
            trial,
            {
                name: value
                for name, value in trial.candidate.hyperparameters.items()
                if name in searched and _can_be_drawn(searched[name], value)
            },
        )
        for trial in sorted(trials, key=lambda trial: trial.number)
    ]
    distributions = {
        name: _distribution(dimension, [params[name] for _, params in trials_with_params if name in params])
        for name, dimension in searched.items()
    }
    next_number = 0
    for trial, params in trials_with_params:
        # Optuna numbers trials in order, so a number that is missing (its trial is not finished) needs a stand-in.
        for _ in range(next_number, trial.number):
            study.add_trial(create_trial(state=TrialState.WAITING))
        values = [v for objective in selected if (v := metric_value(trial.result, objective, objectives)) is not None]
        study.add_trial(_optuna_trial(trial, values if len(values) == len(selected) else None, params, distributions))
        next_number = trial.number + 1
    return study


def _complete_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _stress_notes(best: Trial | None) -> Iterator[str]:
    """Yield a sentence with the figures of the best trial on the stress suite, if it has any."""
    if best and (stress := describe_stress(best)):
        yield stress


def _omission_notes(trials: Sequence[Trial], space: Space) -> Iterator[str]:
    """Yield a sentence for each value that no plot shows."""
    searched = {dimension.name: dimension for dimension in space.searched}
    for trial in sorted(trials, key=lambda t: t.number):
        for name, value in trial.candidate.hyperparameters.items():
            if name in searched and not _can_be_drawn(searched[name], value):
                yield f"{name} of trial {trial.number} is {value}, which a log scale cannot show."


def _can_be_drawn(dimension: Searched, value: Value) -> bool:
    return isinstance(dimension, Choice) or not dimension.log or float(value) > 0


def _distribution(dimension: Searched, values: Sequence[Value]) -> BaseDistribution:
    """Return the distribution of a hyperparameter, extended to the values of all trials.

    The values of the tutorial's network may be outside of the search space.
    """
    if isinstance(dimension, Choice):
        return CategoricalDistribution(list(dict.fromkeys((*dimension.values, *values))))
    low, high = min([dimension.low, *map(float, values)]), max([dimension.high, *map(float, values)])
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def _optuna_trial(
    trial: Trial,
    values: Sequence[float] | None,
    params: Mapping[str, Value],
    distributions: Mapping[str, BaseDistribution],
) -> optuna.trial.FrozenTrial:
    result = trial.result
    state = _OPTUNA_STATES[result.state]
    if state == TrialState.COMPLETE and values is None:
        state = TrialState.FAIL
    optuna_trial = create_trial(
        state=state,
        values=None if state == TrialState.FAIL else values,
        params=dict(params),
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(enumerate(result.history, start=1)),
    )
    # Optuna's times have no time zone; these are UTC.
    optuna_trial.datetime_start = _utc(result.started)
    optuna_trial.datetime_complete = _utc(max(result.started, result.ended))
    return optuna_trial


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@contextmanager
def _silence_optuna() -> Iterator[None]:
    """Silence Optuna's warnings about too few trials, which the page explains itself."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


_OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 0 auto; padding: 12px 20px; }}
h1 {{ font-size: 22px; margin: 8px 0; }}
h2 {{ font-size: 18px; margin: 28px 0 0; }}
p {{ margin: 4px 0; }}
.wide {{ overflow-x: auto; margin-top: 8px; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 3px 12px; text-align: right; border-bottom: 1px solid #ddd; }}
.none {{ padding: 24px; margin-top: 8px; background: #f3f3f3; }}
</style>
<script>{script}</script>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{notes}
{sections}
</body>
</html>
"""
