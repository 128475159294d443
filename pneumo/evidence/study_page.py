"""A study's plots as one page of HTML, whichever engine ran it."""

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

from pneumo.evidence.confirmation import CONFIRMATION_EXPLAINED, confirmation_figure, confirmation_sentences
from pneumo.evidence.pareto import FRONT_EXPLAINED, axis, front_table, pareto_figure
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import OBJECTIVES, epoch_objective
from pneumo.spec.result import Trial
from pneumo.spec.selection import Confirmation, metric_value
from pneumo.spec.space import Choice, Searched, Space

# Okabe and Ito's colours, which colour-blind readers can tell apart (Color Universal Design, 2008).
_STATES = {"COMPLETE": ("complete", "#0072B2"), "PRUNED": ("pruned", "#E69F00"), "FAIL": ("failed", "#D55E00")}

_FEW_TRIALS = 20


def study_page(
    trials: Sequence[Trial],
    *,
    objectives: Sequence[str],
    space: Space,
    title: str = "Study",
    phantom: bool = False,
    confirmed: Sequence[Confirmation] = (),
) -> str:
    """History, hyperparameter importances, parallel coordinates, epochs and timeline, by `optuna.visualization`.

    Of several objectives (names among `OBJECTIVES`) the Pareto front comes first, and history and importances are there
    once for each. `confirmed` are trials trained again; their values are the first objective's.

    One page rather than one for each plot: it must show without a network, and in MLflow, which opens it in a sandbox
    where no second file can be reached. So Plotly's 4.8 MB of script have to be in each page; here they are there once.

    Where a plot makes no sense yet, a sentence says why. Nothing in the trials makes it raise.
    """
    with _quiet():
        sections = "".join(_sections(trials, objectives, space, confirmed))
    heading = html.escape(title + (" (phantoms)" if phantom else ""))
    counts = ", ".join(
        f"{sum(t.result.state == state for t in trials)} {state}" for state in ("complete", "pruned", "failed")
    )
    aims = "; ".join(f"{objective}, {OBJECTIVES[objective]}" for objective in objectives)
    return _PAGE.format(
        title=heading,
        script=get_plotlyjs(),
        summary=html.escape(f"{len(trials)} trials: {counts}. Objective{'s' * (len(objectives) > 1)}: {aims}."),
        notes=_paragraphs(_left_out(trials, space)),
        sections=sections,
    )


def _sections(
    trials: Sequence[Trial], objectives: Sequence[str], space: Space, confirmed: Sequence[Confirmation]
) -> Iterator[str]:
    first, several = objectives[0], len(objectives) > 1
    # Optuna's plots of one objective show more of it (the best so far, which way is better) in a study of that one alone.
    studies = {objective: _study(trials, objectives, [objective], space) for objective in objectives}
    if several:
        drawn = pareto_figure(_study(trials, objectives, objectives, space), objectives)
        names = [dimension.name for dimension in space.searched]
        yield _section("Pareto front", FRONT_EXPLAINED, drawn, front_table(trials, objectives, names))
    if confirmed:
        drawn, sentences = confirmation_figure(confirmed, first), confirmation_sentences(confirmed, first)
        yield _section("Confirmation", CONFIRMATION_EXPLAINED, drawn, _paragraphs(sentences))
    for heading, explanation, draw in _EACH_OBJECTIVE:
        for objective, study in studies.items():
            explained = explanation if objective == first else ""
            yield _section(f"{heading}: {objective}" if several else heading, explained, draw(study, objective))
    study = studies[first]
    yield _section("Parallel coordinates", _PARALLEL_EXPLAINED, _parallel(study, first))
    yield _section("Objective by epoch", _EPOCHS_EXPLAINED, _by_epoch(study, epoch_objective(objectives)))
    yield _section("Timeline", "When each trial ran, and how it ended.", _timeline(study))


def _history(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete(study)
    if not complete:
        return "No trial is complete yet."
    figure = optuna.visualization.plot_optimization_history(study, target_name=objective)
    figure.update_xaxes(title="trial", dtick=_step(complete[-1].number))
    return figure.update_yaxes(title=objective, **axis([trial.values[0] for trial in complete]))


def _importances(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete(study)
    names = {name for trial in complete for name in trial.params}
    if len(complete) < 2:
        return "Importances need at least two complete trials."
    if len(names) < 2:
        return "Importances compare hyperparameters; fewer than two are searched."
    if len({trial.value for trial in complete}) < 2:
        return f"All complete trials have the same {objective}: no hyperparameter made a difference."
    try:
        figure = optuna.visualization.plot_param_importances(study, target_name=objective)
    except (ValueError, RuntimeError) as error:
        return f"Optuna cannot tell importances from these trials: {error}"
    figure.update_xaxes(title=f"share of importance for {objective}", range=[0, 1.1])
    return figure.update_yaxes(title="")


def _parallel(study: optuna.Study, objective: str) -> go.Figure | str:
    complete = _complete(study)
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
        return f"No trial has a {objective} of each epoch."
    figure = optuna.visualization.plot_intermediate_values(study)
    figure.update_xaxes(title="epoch", dtick=_step(max(epochs)))
    return figure.update_yaxes(title=objective)


def _timeline(study: optuna.Study) -> go.Figure | str:
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return "No trial has ended yet."
    figure = optuna.visualization.plot_timeline(study)
    figure.data = [bars for bars in figure.data if bars.name in _STATES]  # not those that fill gaps in the numbers
    for bars in figure.data:
        bars.name, bars.marker.color = _STATES[bars.name]
        bars.hovertemplate = "%{text}<extra></extra>"
    figure.update_xaxes(title="time (UTC)")
    return figure.update_yaxes(title="trial", dtick=_step(len(trials)))


def _step(last: int) -> int:
    """Between ticks at whole numbers, about ten of them."""
    return max(1, math.ceil(last / 10))


_EACH_OBJECTIVE: tuple[tuple[str, str, Callable[[optuna.Study, str], go.Figure | str]], ...] = (
    ("Optimization history", "Each complete trial, and the best value so far.", _history),
    (
        "Hyperparameter importances",
        "How much each hyperparameter decides whether a trial is among the better ones (PED-ANOVA, Watanabe et al., "
        f"IJCAI 2023). With fewer than about {_FEW_TRIALS} complete trials the order is a guess.",
        _importances,
    ),
)

_PARALLEL_EXPLAINED = "A line is a complete trial; None is where a hyperparameter did not apply to it."
_EPOCHS_EXPLAINED = "A line is a trial; one that ends early was pruned or failed."


def _section(heading: str, explanation: str, drawn: go.Figure | str, below: str = "") -> str:
    """`below` is HTML, everything else is text."""
    if isinstance(drawn, str):
        body = f'<p class="none">{html.escape(drawn)}</p>'
    else:
        drawn.update_layout(template="plotly_white", title=None, margin={"t": 40, "b": 60}, font={"size": 13})
        body = drawn.to_html(
            full_html=False, include_plotlyjs=False, default_height="460px", config={"displayModeBar": False}
        )
    return f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(explanation)}</p>{body}{below}</section>"


def _paragraphs(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def _study(trials: Sequence[Trial], objectives: Sequence[str], aims: Sequence[str], space: Space) -> optuna.Study:
    """The trials as an Optuna study in memory of the `aims`, which are some of the objectives that they had."""
    study = optuna.create_study(directions=[OBJECTIVES[aim] for aim in aims])
    searched = {dimension.name: dimension for dimension in space.searched}
    shown = [
        (
            trial,
            {n: v for n, v in trial.candidate.hyperparameters.items() if n in searched and _drawable(searched[n], v)},
        )
        for trial in sorted(trials, key=lambda t: t.number)
    ]
    distributions = {
        name: _distribution(dimension, [params[name] for _, params in shown if name in params])
        for name, dimension in searched.items()
    }
    number = 0
    for trial, params in shown:
        # Optuna numbers trials as they come, so a number that is not among them (still under way) needs a stand-in.
        for _ in range(number, trial.number):
            study.add_trial(create_trial(state=TrialState.WAITING))
        values = [value for aim in aims if (value := metric_value(trial.result, aim, objectives)) is not None]
        study.add_trial(_frozen(trial, values if len(values) == len(aims) else None, params, distributions))
        number = trial.number + 1
    return study


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _left_out(trials: Sequence[Trial], space: Space) -> Iterator[str]:
    """A sentence for each value that no plot shows."""
    searched = {dimension.name: dimension for dimension in space.searched}
    for trial in sorted(trials, key=lambda t: t.number):
        for name, value in trial.candidate.hyperparameters.items():
            if name in searched and not _drawable(searched[name], value):
                yield f"{name} of trial {trial.number} is {value}, which a log scale cannot show."


def _drawable(dimension: Searched, value: Value) -> bool:
    return isinstance(dimension, Choice) or not dimension.log or float(value) > 0


def _distribution(dimension: Searched, taken: Sequence[Value]) -> BaseDistribution:
    """A hyperparameter's values, and those outside that trials took: the tutorial's may lie outside the space."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(list(dict.fromkeys((*dimension.values, *taken))))
    low, high = min([dimension.low, *map(float, taken)]), max([dimension.high, *map(float, taken)])
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def _frozen(
    trial: Trial,
    values: Sequence[float] | None,
    params: Mapping[str, Value],
    distributions: Mapping[str, BaseDistribution],
) -> optuna.trial.FrozenTrial:
    result = trial.result
    state = _OPTUNA_STATES[result.state]
    if state == TrialState.COMPLETE and values is None:
        state = TrialState.FAIL
    frozen = create_trial(
        state=state,
        values=None if state == TrialState.FAIL else values,
        params=dict(params),
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(enumerate(result.history, start=1)),
    )
    # Optuna's times know no zone; here they are UTC.
    frozen.datetime_start = _utc(result.started)
    frozen.datetime_complete = _utc(max(result.started, result.ended))
    return frozen


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing in here: what it would say of too few trials stands on the page."""
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
