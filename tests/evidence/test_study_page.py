"""Tests of pneumo.evidence.study_page: each study has a page, even an empty one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import optuna
import pytest
from pneumo.evidence.study_page import study_page

from pneumo.spec.candidate import Candidate
from pneumo.spec.hyperparameters import Value
from pneumo.spec.result import Trial, TrialResult
from pneumo.spec.selection import Confirmation
from pneumo.spec.space_reader import read_space

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPACE = read_space(
    {
        "layers": {"low": 2, "high": 4},
        "filters": [16, 64],
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
        "batch_norm": [True, False],
        "optimizer": ["adam", "sgd"],
        "momentum": {"low": 0.0, "high": 0.99, "when": {"optimizer": "sgd"}},
    }
)
TUTORIAL: dict[str, Value] = {
    "layers": 1,
    "filters": 32,
    "learning_rate": 0.001,
    "weight_decay": 0.0,
    "batch_norm": False,
    "optimizer": "adam",
}


def _trial(
    number: int,
    value: float | None = 0.9,
    hyperparameters: Mapping[str, Value] | None = None,
    state: Literal["complete", "pruned", "failed"] = "complete",
) -> Trial:
    started = (START + timedelta(minutes=number)).timestamp()
    history = (0.8, value) if value is not None else ()
    result = TrialResult(number, "run", state, value, history=history, started=started, ended=started + 50)
    return Trial(Candidate(number, hyperparameters or {}), result)


def _study() -> list[Trial]:
    trials = [_trial(0, 0.9, TUTORIAL)]
    for number in range(1, 12):
        sgd = number % 2 == 0
        values: dict[str, Value] = {
            "layers": 2 + number % 3,
            "filters": 16 if number % 4 else 64,
            "learning_rate": 10 ** (-4 + number / 6),
            "weight_decay": 10 ** (-6 + number / 3),
            "batch_norm": number % 3 == 0,
            "optimizer": "sgd" if sgd else "adam",
        }
        trials.append(_trial(number, 0.8 + 0.01 * number, values | ({"momentum": 0.05 * number} if sgd else {})))
    trials.append(_trial(12, 0.7, {"layers": 2}, "pruned"))
    trials.append(_trial(15, None, {"layers": 2}, "failed"))
    return trials


def _page(trials: list[Trial], **changes: Any) -> str:
    """Return the page without Plotly's script, whose text would match too much."""
    usual: dict[str, Any] = {"objectives": ("val_auc",), "space": SPACE, "title": "article"}
    page = study_page(trials, **(usual | changes))
    head, _, rest = page.partition("<script>")
    script, _, body = rest.partition("</script>\n</head>")
    assert len(script) > 1_000_000
    return head + body


def _plotted(page: str, count: int = 5) -> list[str]:
    """Check that there are `count` sections, and return the headings of those that have a plot."""
    sections = re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", page, re.DOTALL)
    assert len(sections) == count
    for heading, body in sections:
        assert ("Plotly.newPlot" in body) != ('class="none"' in body), heading
    return [heading for heading, body in sections if "Plotly.newPlot" in body]


ALL = ["Optimization history", "Hyperparameter importances", "Parallel coordinates", "Objective by epoch", "Timeline"]


def test_a_study_shows_every_plot_and_reaches_for_no_network() -> None:
    page = _page(_study())
    assert _plotted(page) == ALL
    assert not re.search(r"""(src|href)=["']""", page)
    assert "14 trials: 12 complete, 1 pruned, 1 failed. Objective: val_auc, maximize." in page
    assert "weight_decay of trial 0 is 0.0, which a log scale cannot show." in page
    for state in ("complete", "pruned", "failed"):
        assert f'"name":"{state}"' in page
    assert "WAITING" not in page
    assert "2026-01-01T12:15:00" in page  # the failed trial keeps its number and time after the gap
    assert "phantoms" not in page


def test_phantoms_are_called_so_and_a_title_is_no_markup() -> None:
    page = _page(_study()[:1], title="<b>a & b</b>", phantom=True)
    assert "<h1>&lt;b&gt;a &amp; b&lt;/b&gt; (phantoms)</h1>" in page


def test_the_best_line_follows_the_direction() -> None:
    trials = [_trial(0, 0.5), _trial(1, 0.7), _trial(2, 0.4)]
    assert '"y":[0.5,0.7,0.7]' in _page(trials)
    assert '"y":[0.5,0.5,0.4]' in _page(trials, objectives=("val_loss",))


@pytest.mark.parametrize(
    ("trials", "plotted"),
    [
        ([], []),
        ([_trial(0, None, {}, "failed")], ["Timeline"]),
        ([_trial(3, 0.9, TUTORIAL)], ["Optimization history", "Objective by epoch", "Timeline"]),
        ([_trial(0), _trial(1, 0.8)], ["Optimization history", "Objective by epoch", "Timeline"]),
        ([_trial(0, float("nan"), TUTORIAL), _trial(1, float("inf"), TUTORIAL)], ["Objective by epoch", "Timeline"]),
        ([_trial(n, 0.9, TUTORIAL) for n in range(4)], [name for name in ALL if name != "Hyperparameter importances"]),
        (
            [_trial(n, 0.9 + n / 100, {"layers": 2 + n % 3}) for n in range(4)],
            [name for name in ALL if name != "Hyperparameter importances"],
        ),
        ([_trial(0, 0.9, TUTORIAL), _trial(1, 0.8, TUTORIAL | {"layers": 3})], ALL),
        ([_trial(0, 0.9, TUTORIAL), _trial(1, 0.8, {"optimizer": "sgd", "momentum": 0.5, "epochs": 3})], ALL),
    ],
    ids=["empty", "failed", "one", "nothing searched", "not finite", "constant", "one name", "two", "disjoint"],
)
def test_a_plot_that_makes_no_sense_yet_says_why(trials: list[Trial], plotted: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _plotted(_page(trials)) == plotted


def test_values_of_mixed_types_and_the_ends_of_ranges_can_be_plotted() -> None:
    space = read_space(
        {"batch_norm": [False, True], "pooling": ["max", "average"], "channels": [1, 3], "epochs": [1, 2]}
    )
    trials = [
        _trial(
            n, n / 10, {"batch_norm": n % 2 == 0, "pooling": "max" if n < 3 else "average", "channels": 1, "epochs": n}
        )
        for n in range(1, 6)
    ]
    assert _plotted(_page(trials, space=space)) == ALL


TWO = ("val_auc", "parameters")
BOTH = [f"{plot}: {name}" for plot in ("Optimization history", "Hyperparameter importances") for name in TWO]


def _measured(trial: Trial, **metrics: float) -> Trial:
    return replace(trial, result=replace(trial.result, metrics=metrics))


def test_of_several_objectives_the_front_comes_first_and_each_has_its_history() -> None:
    trials = [_measured(t, parameters=1e4 * 2**t.number) if t.result.state == "complete" else t for t in _study()]
    page = _page(trials, objectives=TWO)
    assert _plotted(page, count=8) == ["Pareto front", *BOTH, "Parallel coordinates", "Objective by epoch", "Timeline"]
    assert "Objectives: val_auc, maximize; parameters, minimize." in page
    assert page.count("PED-ANOVA") == 1


def test_the_best_line_follows_the_direction_of_each_objective() -> None:
    trials = [_measured(_trial(n, v), parameters=p) for n, (v, p) in enumerate([(0.5, 20), (0.7, 30), (0.4, 10)])]
    _, auc, parameters = _page(trials, objectives=TWO).split("<h2>Optimization history: ")
    assert '"y":[0.5,0.7,0.7]' in auc
    assert '"y":[20.0,20.0,10.0]' in parameters


def test_history_is_of_the_objective_that_each_epoch_has() -> None:
    page = _page([_measured(t, best_val_loss=0.5) for t in _study()], objectives=("parameters", "val_loss"))
    assert '"title":{"text":"val_loss"}' in page.partition("<h2>Objective by epoch</h2>")[2]


def test_epochs_are_of_the_metric_that_stands_for_a_stress_objective() -> None:
    page = _page(_study(), objectives=("val_stress_auc",))
    assert '"title":{"text":"epoch_val_stress_auc"}' in page.partition("<h2>Objective by epoch</h2>")[2]


def test_the_best_trials_figures_on_the_stress_suite_stand_at_the_head() -> None:
    best, *others = _study()
    judged = _measured(best, val_stress_auc=0.91, val_stress_worst=0.7)
    sentence = f"trial {best.number} reaches val_stress_auc 0.9100, val_stress_worst 0.7000."
    assert sentence in _page([judged, *others], best=judged).partition("<section>")[0]
    assert "stress" not in _page([best, *others], best=best).partition("<body>")[2].partition("<section>")[0]


def test_confirmed_trials_have_a_section_of_their_own() -> None:
    page = _page(_study(), confirmed=[Confirmation(5, (0.9, 0.91, 0.95), 0.97)])
    assert _plotted(page, count=6) == ["Confirmation", *ALL]
    assert "<p>Trial 5: mean 0.9200 over 3 seeds" in page
    assert "Confirmation" not in _page(_study())


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        ([], []),
        ([None], [None]),
        ([0.9, 0.8], [None, None]),
        ([0.9, float("nan")], [float("inf"), 5]),
        ([0.9, 0.9], [5, 5]),
        ([0.9, 0.8], [0, -5]),
        ([1.7e308, 5e-324], [5e-324, 1.7e308]),
        ([0.9, 0.8, None], [5e6, 1, None]),
    ],
    ids=["empty", "failed", "unknown", "not finite", "equal", "not positive", "huge", "far apart"],
)
@pytest.mark.parametrize("objectives", [TWO, (*TWO, "predict_ms"), (*TWO, "predict_ms", "model_bytes")], ids=len)
def test_nothing_in_trials_or_confirmations_makes_it_raise(
    values: list[float | None], parameters: list[float | None], objectives: tuple[str, ...]
) -> None:
    trials = []
    for number, (value, measure) in enumerate(zip(values, parameters, strict=True)):
        trial = _trial(number, value, TUTORIAL, "failed" if value is None else "complete")
        trials.append(
            trial if measure is None else _measured(trial, parameters=measure, predict_ms=measure, model_bytes=measure)
        )
    confirmed = [Confirmation(n, (v, -v, 0.5)[: n + 1], v) for n, v in enumerate(values) if v is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = _page(trials, objectives=objectives, confirmed=confirmed)
    _plotted(page, count=4 + 2 * len(objectives) + bool(confirmed))


def test_no_value_is_markup() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    trials = [_measured(_trial(n, n / 10, {"optimizer": evil}), parameters=n) for n in range(4)]
    page = _page(trials, objectives=TWO, title=evil)
    assert "<img" not in page
    assert page.count("&lt;/script&gt;&lt;img") > 2


def test_times_are_shown_in_utc_and_never_run_backwards() -> None:
    start = START.timestamp()
    page = _page([Trial(Candidate(0, {}), TrialResult(0, "run", "complete", 0.9, started=start, ended=start - 9))])
    assert '"base":["2026-01-01T12:00:00"]' in page
    assert '"x":[0.0]' in page


def test_optuna_is_quiet_within_and_as_loud_as_before_after(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    _page(_study())
    _page([])
    assert optuna.logging.get_verbosity() == before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
