"""The `search` block: engines, algorithms, pruners, and combinations that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pneumo.spec.algorithms import ALGORITHMS, PRUNERS
from pneumo.spec.candidate import Candidate
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import build_experiment, read_experiment, setting_changes
from pneumo.spec.objective import STRESS_OBJECTIVES
from pneumo.spec.result import State, Trial, TrialResult
from pneumo.spec.stopping import common_cause, trials_since_improvement
from tests.conftest import ROOT

PAIRS = [(engine, algorithm) for engine, algorithms in ALGORITHMS.items() for algorithm in algorithms]
SGD: dict[str, Any] = {"optimizer": ["adam", "sgd"], "momentum": {"low": 0.0, "high": 0.5, "step": 0.1}}
KERAS_TUNER = {"engine": "keras-tuner"}
TWO = ["val_auc", "parameters"]

WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "algorithm of the other": (
        KERAS_TUNER | {"algorithm": "tpe"},
        {},
        "no 'tpe' of engine keras-tuner; there is random,",
    ),
    "two for keras tuner": (
        KERAS_TUNER | {"objective": TWO},
        {},
        "supports one objective; for several use optuna with one of tpe",
    ),
    "two for cmaes": ({"algorithm": "cmaes", "objective": TWO}, {}, "optuna/cmaes supports one objective"),
    "pruned front": (
        {"objective": TWO, "pruner": "asha"},
        {},
        "search.pruner: several objectives cannot be combined",
    ),
    "pruned keras tuner": (
        KERAS_TUNER | {"pruner": "median"},
        {},
        "keras-tuner/bayesian supports no pruner; use pruner: none",
    ),
    "shared keras tuner": (
        KERAS_TUNER | {"shared": True},
        {},
        "search.shared: Keras Tuner's oracle lives with one search; use engine: optuna",
    ),
    "choices for cmaes": (
        {"algorithm": "cmaes"},
        {"filters": [16, 32]},
        "hyperparameters.filters: optuna/cmaes supports no choices; give a range, fix it, or use tpe",
    ),
    "conditions for cmaes": (
        {"algorithm": "cmaes"},
        {"layers": {"low": 1, "high": 3}, "dropout": {"low": 0.1, "high": 0.5, "when": {"layers": 2}}},
        "hyperparameters.dropout: optuna/cmaes supports no conditions; leave out when, or use tpe",
    ),
    "epochs for hyperband": (
        KERAS_TUNER | {"algorithm": "hyperband"},
        {"epochs": [5, 10]},
        "hyperparameters.epochs: keras-tuner/hyperband decides itself how long a trial trains",
    ),
    "continuum for a grid": (
        KERAS_TUNER | {"algorithm": "grid"},
        {"dropout": {"low": 0.0, "high": 0.5}},
        "a grid needs a step or a list",
    ),
    "same objective twice": ({"objective": ["val_auc", "val_auc"]}, {}, "a list of different ones"),
    "no objective": ({"objective": []}, {}, "a list of different ones"),
    "known, not held": ({"try": [{"layers": 2}]}, {}, "search.try[0].layers: 2 is not in the space"),
    "known, misspelt": ({"try": [{}, {"layrs": 2}]}, {}, "search.try[1]: there is no 'layrs'; did you mean 'layers'?"),
    "known, of no use": (
        {"try": [{"momentum": 0.5}]},
        SGD,
        "search.try[0]: momentum has no effect with the other values",
    ),
    "from itself": ({"from": "study"}, {}, "search.from: a study cannot learn from its own trials"),
    "seeds": ({"confirm": {"seeds": 1}}, {}, "search.confirm.seeds: input should be greater than or equal to 2"),
    "misspelt": ({"confirm": {"sedes": 3}}, {}, "search.confirm: there is no 'sedes'; did you mean 'seeds'?"),
    "no time": ({"trial_timeout": "0s"}, {}, "search.trial_timeout: input should be greater than 0"),
    "time in words": ({"trial_timeout": "soon"}, {}, "search.trial_timeout: seconds, or a text such as 90s"),
    "patience": ({"patience": 0}, {}, "search.patience: input should be greater than or equal to 1"),
    "not judged": (
        {"stress": False, "objective": "val_stress_auc"},
        {},
        "search.stress: must be true, since the objective is val_stress_auc",
    ),
    "second not judged": (
        {"stress": False, "objective": ["parameters", "val_stress_worst"]},
        {},
        "search.stress: must be true, since the objective is val_stress_worst",
    ),
}


def build(search: dict[str, Any], block: dict[str, Any] | None = None, **more: Any) -> Experiment:
    return build_experiment({"name": "study", "search": search, "hyperparameters": block or {}} | more, "file.yaml")


@pytest.mark.parametrize(("search", "block", "message"), WRONG.values(), ids=WRONG.keys())
def test_an_invalid_combination_is_refused_with_advice(
    search: dict[str, Any], block: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        build(search, block)
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.yaml: ")


@pytest.mark.parametrize(("engine", "algorithm"), PAIRS)
def test_settings_of_an_algorithm_have_defaults_bounds_and_names(engine: str, algorithm: str) -> None:
    search: dict[str, Any] = {"engine": engine, "algorithm": algorithm}
    known = ALGORITHMS[engine][algorithm].settings.model_fields
    assert set(build(search).search.algorithm_settings) == set(known)
    with pytest.raises(RequestError, match=r"search\.algorithm_settings: there is no 'speed'"):
        build(search | {"algorithm_settings": {"speed": 3}})
    for name in known:
        with pytest.raises(RequestError, match=rf"search\.algorithm_settings\.{name}: .*, got 'fast'"):
            build(search | {"algorithm_settings": {name: "fast"}})


@pytest.mark.parametrize("pruner", PRUNERS)
def test_settings_of_a_pruner_have_defaults_bounds_and_names(pruner: str) -> None:
    known = PRUNERS[pruner].model_fields
    assert set(build({"pruner": pruner}).search.pruner_settings) == set(known)
    with pytest.raises(RequestError, match=r"search\.pruner_settings: there is no 'speed'"):
        build({"pruner": pruner, "pruner_settings": {"speed": 3}})
    for name in known:
        with pytest.raises(RequestError, match=rf"search\.pruner_settings\.{name}: .*, got -1"):
            build({"pruner": pruner, "pruner_settings": {name: -1}})


UNJUDGED = "is a figure of the stress suite, which search.stress: false leaves out"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"max": "val_stress_auc"}, f"promote.max: val_stress_auc {UNJUDGED}"),
        ({"min": "val_stress_worst"}, f"promote.min: val_stress_worst {UNJUDGED}"),
        (
            {"max": "val_auc", "subject_to": {"val_stress_accuracy": {"min": 0.9}}},
            f"promote.subject_to.val_stress_accuracy: val_stress_accuracy {UNJUDGED}",
        ),
    ],
)
def test_a_rule_needs_figures_that_are_recorded(rule: dict[str, Any], message: str) -> None:
    build({}, promote=rule)
    with pytest.raises(RequestError) as caught:
        build({"stress": False}, promote=rule)
    assert str(caught.value) == f"file.yaml: {message}"


@pytest.mark.parametrize("engine", ["optuna", "keras-tuner"])
@pytest.mark.parametrize("objective", STRESS_OBJECTIVES)
def test_a_figure_of_the_stress_suite_is_an_objective_that_prunes(engine: str, objective: str) -> None:
    pruner = {"pruner": "median"} if engine == "optuna" else {}
    assert build({"engine": engine, "objective": objective} | pruner).search.objectives == (objective,)


def test_a_study_of_a_version_without_the_stress_suite_may_be_resumed() -> None:
    now = build({}).model_dump(mode="json")
    before = now | {"search": {key: value for key, value in now["search"].items() if key != "stress"}}
    assert setting_changes(before, now) == []
    assert setting_changes(now, build({"stress": False}).model_dump(mode="json")) == []


def test_an_engine_has_an_algorithm_of_its_own() -> None:
    assert build({}).search.algorithm == "tpe"
    assert build(KERAS_TUNER).search.algorithm == "bayesian"


def test_known_configurations_are_completed_with_what_is_nearest_to_the_tutorials() -> None:
    block = SGD | {"filters": [16, 64], "dropout": {"low": 0.2, "high": 0.4}, "layers": {"low": 2, "high": 4}}
    request = build({"try": [{"optimizer": "sgd"}, {"layers": 3}]}, block)
    baseline, first, second = request.first_candidates
    assert baseline == request.space.baseline()
    assert (first["optimizer"], first["momentum"], first["layers"]) == ("sgd", 0.0, 2)
    assert (first["filters"], first["dropout"]) == (16, 0.2)
    assert second["layers"] == 3
    assert "momentum" not in second
    assert build({"try": [{}], "baseline": False}).first_candidates == (request.space.baseline(),)


def test_the_resolved_experiment_reads_as_itself(tmp_path: Any) -> None:
    request = build(
        {"objective": TWO, "algorithm": "nsga2", "try": [{"layers": 1}], "from": "earlier", "confirm": {}},
        {"layers": [1, 2]},
        promote={"max": "val_auc", "subject_to": {"parameters": {"max": 500000}}},
    )
    (tmp_path / "resolved.yaml").write_text(request.to_yaml())
    assert read_experiment(tmp_path / "resolved.yaml").to_yaml() == request.to_yaml()
    changed = read_experiment(tmp_path / "resolved.yaml", ["search.confirm.top=2", "promote.max=val_f1"])
    assert changed.search.confirm
    assert changed.search.confirm.top == 2
    assert changed.promote
    assert changed.promote.metric == "val_f1"


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_projects_experiments_are_valid_and_say_what_came_out(file: Any) -> None:
    request = read_experiment(file)
    first, *_ = file.read_text().splitlines()
    assert first.startswith("# python -m pneumo.search")
    if request.name != "quickstart":
        assert first == f"# python -m pneumo.search experiments/{file.name}"
    head = file.read_text().split("\nname:")[0]
    assert "two cores" in head.replace("\n# ", " ").lower()
    assert any(word in head for word in ("As run", "came out"))


def finished_trials(*values: float | None, second: tuple[float, ...] = ()) -> list[Trial]:
    """Return trials in the order in which they ended. A value of None means a failed trial."""
    trials = []
    for number, value in enumerate(values):
        metrics = {"parameters": second[number]} if second else {}
        state: State = "failed" if value is None else "complete"
        trials.append(
            Trial(Candidate(number, {}), TrialResult(number, "run", state, value, metrics, ended=float(number)))
        )
    return trials


@pytest.mark.parametrize(
    ("values", "since"),
    [((), 0), ((0.5,), 0), ((0.5, 0.4, 0.3), 2), ((0.5, 0.4, 0.6, 0.6), 1), ((0.5, None, 0.4, None), 1), ((None,), 0)],
)
def test_trials_since_a_better_value_are_counted(values: tuple[float | None, ...], since: int) -> None:
    assert trials_since_improvement(finished_trials(*values), ["val_auc"]) == since
    assert trials_since_improvement(list(reversed(finished_trials(*values))), ["val_auc"]) == since


def test_with_several_objectives_better_means_beyond_the_front() -> None:
    trials = finished_trials(0.5, 0.4, 0.6, 0.55, 0.6, second=(100, 50, 900, 950, 900))
    assert trials_since_improvement(trials[:2], TWO) == 0
    assert trials_since_improvement(trials[:3], TWO) == 0
    assert trials_since_improvement(trials, TWO) == 2
    assert trials_since_improvement(trials, ["val_loss", "parameters"]) == 3


def test_a_trials_time_may_change_from_run_to_run() -> None:
    experiments = [build({"trial_timeout": given}) for given in ("30m", None)]
    assert [experiment.search.trial_timeout for experiment in experiments] == [1800.0, None]
    assert setting_changes(*(experiment.model_dump(mode="json") for experiment in experiments)) == []


def test_failures_are_of_one_kind_where_only_their_figures_differ() -> None:
    lost = [f"the loss is {loss} in epoch {n}, step {n + 1}" for n, loss in enumerate(("nan", "inf", "nan"), start=1)]
    assert common_cause(["no space left", *lost, "no space left"]) == (lost[0], 3)
    assert common_cause(["one", "another"]) == ("one", 1)
