"""The experiment file and the space it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pneumo.spec.algorithms import ALGORITHMS, PRUNERS
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import DataSpec, Experiment
from pneumo.spec.experiment_file import (
    build_experiment,
    is_same_experiment,
    parse_experiment,
    read_experiment,
    setting_changes,
)
from pneumo.spec.hyperparameters import NAMES, TUTORIAL, Hyperparameters
from pneumo.spec.network import map_size, unbuildable
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.promotion import FLOORS, PromoteSpec
from pneumo.spec.search import SearchSpec
from pneumo.spec.sources import SOURCES
from pneumo.spec.space import Range
from pneumo.spec.space_reader import read_space
from pneumo.spec.yaml_text import parse_yaml
from tests.support.earlier import earlier_version


def test_an_empty_block_is_the_tutorials_network() -> None:
    space = read_space({})
    (only,) = space.grid()
    assert Hyperparameters(**only) == TUTORIAL  # type: ignore[arg-type]
    assert "momentum" not in only  # adam has none
    assert only == space.baseline()


def test_a_plain_value_is_fixed_a_list_a_choice_and_low_high_a_range() -> None:
    space = read_space({"layers": 2, "filters": [16, 32], "dropout": {"low": 0, "high": 0.5}})
    assert space.possible_values("layers") == (2,)
    assert space.possible_values("filters") == (16, 32)
    assert [d.name for d in space.searched] == ["filters", "dropout"]


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"low": 1, "high": 4}, (1, 2, 3, 4)),
        ({"low": 1, "high": 6, "step": 2}, (1, 3, 5)),
    ],
)
def test_a_range_of_whole_numbers_has_these_values(entry: dict[str, int], values: tuple[int, ...]) -> None:
    assert read_space({"layers": entry, "image_size": 512}).possible_values("layers") == values


def test_a_step_of_tenths_is_exact() -> None:
    dimension = read_space({"dropout": {"low": 0.0, "high": 0.5, "step": 0.1}})["dropout"]
    assert isinstance(dimension, Range)
    assert dimension.values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def test_a_condition_leaves_out_inactive_hyperparameters() -> None:
    space = read_space({"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.9]})
    assert [("momentum" in v, v["optimizer"]) for v in space.grid()] == [(False, "adam"), (True, "sgd"), (True, "sgd")]


def test_conditions_nest() -> None:
    space = read_space(
        {
            "schedule": {"values": ["constant", "cosine"], "when": {"optimizer": "sgd"}},
            "optimizer": ["adam", "sgd"],
            "dropout": {"values": [0.1, 0.2], "when": {"schedule": "cosine"}},
        }
    )
    # adam; sgd constant; sgd cosine with two dropouts
    assert sum(1 for _ in space.grid()) == 4


def test_the_baseline_is_the_tutorials_network_also_outside_the_space() -> None:
    space = read_space({"layers": [2, 3], "learning_rate": 0.1, "epochs": 5})
    baseline = space.baseline()
    assert (baseline["layers"], baseline["learning_rate"], baseline["epochs"]) == (1, 0.001, 5)
    assert not space.contains(baseline)


@given(st.data())
def test_drawn_values_lie_in_the_space(data: st.DataObject) -> None:
    block: dict[str, Any] = {
        "layers": data.draw(st.sampled_from([1, [1, 2], {"low": 1, "high": 3}])),
        "optimizer": data.draw(st.sampled_from(["sgd", ["adam", "sgd", "rmsprop"]])),
        "momentum": data.draw(st.sampled_from([0.5, [0.0, 0.5], {"low": 0.0, "high": 0.9}])),
        "dropout": data.draw(st.sampled_from([0.0, {"low": 0.0, "high": 0.5, "step": 0.25}])),
    }
    space = read_space(block)
    drawn = space.draw(lambda d: data.draw(st.sampled_from(d.values or space.possible_values(d.name))))
    assert space.contains(drawn)
    assert not space.contains(drawn | {"layers": 9})
    assert set(drawn) <= set(NAMES)


def test_a_network_with_more_pooling_than_pixels_is_unbuildable() -> None:
    assert [map_size(Hyperparameters(layers=n)) for n in range(1, 6)] == [31, 14, 6, 2, 0]
    reason = unbuildable(Hyperparameters(layers=5))
    assert reason is not None
    assert "layers=5" in reason
    assert unbuildable(TUTORIAL) is None


WRONG = {
    "unknown key": ({"serch": {}}, "there is no 'serch'; did you mean 'search'?"),
    "unknown hyperparameter": ({"hyperparameters": {"layrs": 1}}, "there is no 'layrs'; did you mean 'layers'?"),
    "wrong type": ({"hyperparameters": {"layers": 2.5}}, "hyperparameters.layers: input should be a valid integer"),
    "a yes for a number": ({"hyperparameters": {"layers": True}}, "hyperparameters.layers"),
    "out of bounds": ({"hyperparameters": {"dropout": 1.5}}, "less than or equal to 0.95, got 1.5"),
    "upside down": ({"hyperparameters": {"layers": {"low": 3, "high": 1}}}, "low must be below high"),
    "log and step": (
        {"hyperparameters": {"learning_rate": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}},
        "log and step cannot be combined",
    ),
    "log from zero": ({"hyperparameters": {"dropout": {"low": 0, "high": 0.5, "log": True}}}, "must start above 0"),
    "range of words": ({"hyperparameters": {"pooling": {"low": 1, "high": 2}}}, "cannot be a range"),
    "twice": ({"hyperparameters": {"filters": [16, 16]}}, "a value appears twice"),
    "no values": ({"hyperparameters": {"filters": []}}, "at least one value"),
    "not a number": ({"hyperparameters": {"dropout": float("nan")}}, "a finite number"),
    "unknown parent": (
        {"hyperparameters": {"dropout": {"value": 0.1, "when": {"layer": 1}}}},
        "hyperparameters.dropout.when: there is no 'layer'; did you mean 'layers'?",
    ),
    "circle": (
        {
            "hyperparameters": {
                "dropout": {"value": 0.1, "when": {"layers": 1}},
                "layers": {"value": 1, "when": {"dropout": 0.1}},
            }
        },
        "the conditions form a cycle: layers -> dropout -> layers",
    ),
    "cannot be built": ({"hyperparameters": {"layers": 7}}, "no candidate can be built: layers=7"),
    "too many sizes": ({"hyperparameters": {"image_size": {"low": 64, "high": 224}}}, "at most 16 sizes"),
    "engine": ({"search": {"engine": "hyperopt"}}, "there is no 'hyperopt'; there is optuna, keras-tuner"),
    "algorithm": ({"search": {"algorithm": "tpee"}}, "search.algorithm: there is no 'tpee' of engine optuna"),
    "objective": ({"search": {"objective": "val_accu"}}, "did you mean 'val_accuracy'?"),
    "pruner without epochs": (
        {"search": {"objective": "parameters", "pruner": "median"}},
        "median needs an objective that is known after each epoch",
    ),
    "grid of a continuum": (
        {"hyperparameters": {"dropout": {"low": 0, "high": 0.5}}, "search": {"algorithm": "grid"}},
        "a grid needs a step or a list",
    ),
    "negative trials": (
        {"search": {"trials": -1}},
        "search.trials: input should be greater than or equal to 1, got -1",
    ),
    "source": ({"data": {"source": "imagenet"}}, "data.source: there is no 'imagenet'"),
    "name": ({"name": "a/b"}, "name: letters, digits"),
}


@pytest.mark.parametrize(("document", "message"), WRONG.values(), ids=WRONG.keys())
def test_an_error_is_one_line(document: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        build_experiment({"name": "x"} | document, "x.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.yaml: ")
    assert "\n" not in str(caught.value)


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\nhyperparameters:\n  learning_rate: {low: 1e-4, high: 1E-2, log: true}\nsearch: {timeout: 90m}\n"
    )
    experiment = read_experiment(file)
    assert experiment.space.possible_values("learning_rate") == (1e-4, 1e-2)
    assert experiment.search.timeout == 5400


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: x\nsearch: {trials: 3\n")
    with pytest.raises(RequestError, match=r"x\.yaml:3: not valid YAML"):
        read_experiment(file)
    file.write_text("name: x\nname: y\n")
    with pytest.raises(RequestError, match=r"x\.yaml:2: not valid YAML: key 'name' appears twice"):
        read_experiment(file)


def test_yaml_is_data_never_code(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        read_experiment(file)


def test_settings_replace_values_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: x\nhyperparameters:\nsearch: {trials: 3}\n")
    settings = ["layers=[1, 2]", "search.trials=7", "data.phantom.size=64", "name=y", "hyperparameters.dropout=0.5"]
    experiment = read_experiment(file, settings)
    assert experiment.name == "y"
    assert experiment.search.trials == 7
    assert experiment.data.phantom.size == 64
    assert experiment.space.possible_values("layers") == (1, 2)
    assert experiment.space.possible_values("dropout") == (0.5,)
    with pytest.raises(RequestError, match=r"did you mean 'search\.pruner'"):
        read_experiment(file, ["search.prunner=median"])
    with pytest.raises(RequestError, match="needs KEY=VALUE"):
        read_experiment(file, ["layers"])


def test_a_resolved_experiment_reads_back_the_same(tmp_path: Path) -> None:
    block = {
        "optimizer": ["adam", "sgd"],
        "momentum": [0.0, 0.5],
        "learning_rate": {"low": 1e-5, "high": 0.1, "log": True},
    }
    experiment = build_experiment({"name": "x", "hyperparameters": block, "search": {"timeout": "2h"}}, "x")
    file = tmp_path / "x.yaml"
    file.write_text(experiment.to_yaml())
    again = read_experiment(file)
    assert again.to_yaml() == experiment.to_yaml()
    assert again.space == experiment.space


def test_an_experiment_that_an_earlier_version_recorded_is_read_and_has_not_changed(tmp_path: Path) -> None:
    current = build_experiment({"name": "x", "search": {"trials": 3}}, "x").to_yaml()
    recorded = current.replace("  max_failures:", "  terminator: false\n  max_failures:")
    assert recorded != current
    file = tmp_path / "experiment.yaml"
    file.write_text(recorded)
    assert read_experiment(file).to_yaml() == parse_experiment(recorded, "x").to_yaml() == current
    assert is_same_experiment(recorded, current)
    assert setting_changes(yaml.safe_load(recorded), yaml.safe_load(current)) == []
    assert not is_same_experiment(recorded.replace("trials: 3", "trials: 4"), current)
    assert not is_same_experiment("name: [", current)
    assert not is_same_experiment(None, current)
    ended_by_it = recorded.replace("terminator: false", "terminator: true")
    assert parse_experiment(ended_by_it, "x").to_yaml() == current  # so that its trials can be promoted and replayed
    file.write_text(ended_by_it)
    with pytest.raises(RequestError, match=r"experiment.yaml: search\.terminator: was removed; use search\.patience"):
        read_experiment(file)


def test_hyperparameters_that_an_earlier_version_did_not_have_are_no_change() -> None:
    block: dict[str, Any] = {"layers": [1, 2], "optimizer": ["adam", "sgd"], "momentum": {"low": 0.0, "high": 0.9}}
    with earlier_version():
        recorded = build_experiment({"name": "x", "hyperparameters": block}, "x").to_yaml()
    current = build_experiment({"name": "x", "hyperparameters": block}, "x").to_yaml()
    assert "warmup" not in recorded
    assert is_same_experiment(recorded, current)
    assert setting_changes(yaml.safe_load(recorded), yaml.safe_load(current)) == []
    other = build_experiment({"name": "x", "hyperparameters": block | {"warmup": 0.1, "layers": [1, 3]}}, "x").to_yaml()
    assert not is_same_experiment(recorded, other)
    assert setting_changes(yaml.safe_load(recorded), yaml.safe_load(other)) == [
        "hyperparameters.layers was [1, 2], now [1, 3]",
        "hyperparameters.warmup was 0.0, now 0.1",
    ]


def test_changes_name_the_differences_without_the_budget() -> None:
    before = {"search": {"trials": 3, "pruner": "none"}, "hyperparameters": {"layers": {"low": 1, "high": 4}}}
    now = {"search": {"trials": 9, "pruner": "median"}, "hyperparameters": {"layers": [1, 2]}}
    assert setting_changes(before, now) == [
        "hyperparameters.layers was {high: 4, low: 1}, now [1, 2]",
        "search.pruner was none, now median",
    ]


def test_every_field_of_an_experiment_has_a_description() -> None:
    settings = [algorithm.settings for algorithms in ALGORITHMS.values() for algorithm in algorithms.values()]
    models = _models_in(Experiment) | {Hyperparameters} | set(settings) | set(PRUNERS.values())
    missing = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not (field.description or "").endswith(".")
    ]
    assert missing == []


def test_the_json_schema_has_the_values_of_fields_that_are_checked_by_name() -> None:
    search = SearchSpec.model_json_schema()["properties"]
    assert search["engine"]["enum"] == list(ALGORITHMS)
    assert search["pruner"]["enum"] == list(PRUNERS)
    assert set(search["algorithm"]["enum"]) == {name for algorithms in ALGORITHMS.values() for name in algorithms}
    one, several = search["objective"]["anyOf"]
    assert one["enum"] == several["items"]["enum"] == list(OBJECTIVES)
    promote = PromoteSpec.model_json_schema()["properties"]
    assert promote["floors"]["propertyNames"]["enum"] == list(FLOORS)
    assert promote["max"]["anyOf"][0]["enum"] == promote["subject_to"]["propertyNames"]["enum"] == list(OBJECTIVES)
    assert DataSpec.model_json_schema()["properties"]["source"]["enum"] == list(SOURCES)


def _models_in(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Return a model and all models of its fields."""
    models = {model}
    pending: list[Any] = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            models |= _models_in(annotation)
        pending += get_args(annotation)
    return models


@pytest.mark.parametrize("key", ["on", "off", "yes", "No", "true"])
def test_a_key_is_a_name_also_if_it_is_a_truth_value_in_yaml_1_1(key: str) -> None:
    assert parse_yaml(f"promote: {{{key}: true}}", "it") == {"promote": {key: True}}
    assert parse_yaml(f"promote:\n  {key}: stress", "it") == {"promote": {key: "stress"}}
    with pytest.raises(RequestError, match=f"key '{key}' appears twice"):
        parse_yaml(f"{{{key}: 1, {key}: 2}}", "it")


def test_the_experiment_takes_the_key_on() -> None:
    experiment = parse_experiment("name: x\npromote: {threshold: youden, on: validation}\n", "it")
    assert experiment.promote.on == "validation"
    assert parse_experiment(experiment.to_yaml(), "it").promote == experiment.promote
    with pytest.raises(RequestError, match=r"promote\.on: .*'stress' or 'validation'"):
        parse_experiment("name: x\npromote: {on: both}\n", "it")
