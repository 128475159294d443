"""`--set KEY=VALUE` for every key of an experiment, and who is to blame for a wrong one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from pneumo.__main__ import VERBS
from pneumo.spec.algorithms import ALGORITHMS, PRUNERS
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.experiment_file import parse_experiment, read_experiment
from pneumo.spec.hyperparameters import NAMES, TUTORIAL, value_type
from pneumo.spec.keys import BLOCKS
from pneumo.spec.objective import OBJECTIVES
from pneumo.spec.promotion import FLOORS
from tests.conftest import ROOT

FILES = {
    "without blocks": "name: x\n",
    "with empty blocks": "name: x\ndata:\nsearch:\nhyperparameters:\npromote:\n",
    "with blocks": "name: x\ndata: {test: 0.2}\nsearch: {trials: 7}\nhyperparameters: {}\npromote: {gate: better}\n",
}

SAMPLES: dict[str, Any] = {
    "name": "y",
    "data.path": "a b/x=1.zip",
    "data.classes": ["healthy", "sick"],
    "data.allow_leaks": "as agreed: 3 = 4",
    "search.timeout": "90m",
    "search.trial_timeout": 60.0,
    "search.patience": 4,
    "search.try": [{"dropout": 0.0}],
    "search.from": "earlier",
    "compute.shared": "/shared",
    "promote.max": "val_auc",
    "promote.min": "parameters",
}
"""Values of the keys whose default is no example of a value."""

RESOLVED = {"search.timeout": 5400.0}
"""What a resolved experiment has for a sample that is written in another way."""


OPEN_BLOCKS = (
    "hyperparameters",
    "promote.subject_to",
    "promote.floors",
    "search.algorithm_settings",
    "search.pruner_settings",
)
"""Blocks whose keys no model lists."""


def block_keys() -> Iterator[tuple[str, Any]]:
    """Yield each key of the blocks that has a value of its own, with a value."""
    for block, model in BLOCKS.items():
        properties = model.model_json_schema(by_alias=True)["properties"]
        for name in properties:
            key = f"{block}.{name}" if block else name
            if key not in BLOCKS and key not in OPEN_BLOCKS:
                default = properties[name].get("default")
                yield key, SAMPLES.get(key, 2 if default is None else default)


def settings_of(model: type[BaseModel]) -> dict[str, Any]:
    properties = model.model_json_schema()["properties"] if model.model_fields else {}
    samples = {"popsize": 5, "num_initial_points": 5, "sigma0": 0.5, "mutation_prob": 0.5}  # null by default
    return {name: samples.get(name, field["default"]) for name, field in properties.items()}


Pairs = Sequence[tuple[str, Any]]


def cases_of_blocks() -> Iterator[tuple[str, Pairs]]:
    """Yield each key of the blocks, with the settings that set it."""
    for key, value in block_keys():
        source = [("data.source", "phantom")] if key.startswith("data.phantom.") else []
        yield key, [(key, value), *source]
    for figure in FLOORS:
        yield f"promote.floors.{figure}", [(f"promote.floors.{figure}", 0.8)]
    for metric, end in product(OBJECTIVES, ("min", "max")):
        key = f"promote.subject_to.{metric}.{end}"
        yield key, [(key, 0.5), ("promote.max", "val_auc")]


def cases_of_settings() -> Iterator[tuple[str, Pairs]]:
    """Yield each setting of each algorithm and pruner, with the settings that set it."""
    for engine, algorithms in ALGORITHMS.items():
        for algorithm, supported in algorithms.items():
            chosen = [("search.engine", engine), ("search.algorithm", algorithm)]
            for name, value in settings_of(supported.settings).items():
                key = f"search.algorithm_settings.{name}"
                yield f"{key} of {engine}/{algorithm}", [(key, value), *chosen]
    for pruner, model in PRUNERS.items():
        for name, value in settings_of(model).items():
            key = f"search.pruner_settings.{name}"
            yield f"{key} of {pruner}", [(key, value), ("search.pruner", pruner)]


def cases_of_hyperparameters() -> Iterator[tuple[str, Pairs]]:
    """Yield each form of each hyperparameter, with the settings that set it."""
    for name, prefix in product(NAMES, ("", "hyperparameters.")):
        key, value = f"{prefix}{name}", getattr(TUTORIAL, name)
        parent, allowed = ("head", "average") if name == "class_weight" else ("class_weight", "balanced")
        yield key, [(key, value)]
        yield f"{key}.value", [(f"{key}.value", value)]
        yield f"{key}.values", [(f"{key}.values", [value])]
        yield f"{key}.when", [(f"{key}.value", value), (f"{key}.when.{parent}", allowed)]
        if value_type(name) in (int, float) and name != "channels":
            width = 1 if value_type(name) is int else 0.25
            ends = [(f"{key}.low", value), (f"{key}.high", value + width)]
            yield f"{key}.low", ends
            yield f"{key}.step", [*ends, (f"{key}.step", width)]
            if name != "image_size":
                low = value or (1 if value_type(name) is int else width / 2)
                yield f"{key}.log", [(f"{key}.low", low), (f"{key}.high", low + width), (f"{key}.log", True)]


CASES = dict([*cases_of_blocks(), *cases_of_settings(), *cases_of_hyperparameters()])


def as_setting(key: str, value: Any) -> str:
    return f"{key}={yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}"


def resolved_value(experiment: Experiment, key: str) -> Any:
    """Return the value at a dotted key of a resolved experiment."""
    value: Any = yaml.safe_load(experiment.to_yaml())
    path = key.split(".")
    for part in ["hyperparameters", *path] if path[0] in NAMES else path:
        value = value[part]
    return value


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_every_key_of_the_schema_can_be_set(text: str) -> None:
    """One test for all keys, because there are hundreds; a failure names the key."""
    assert len(CASES) > 400
    for case, pairs in CASES.items():
        experiment = parse_experiment(text, "x.yaml", [as_setting(key, value) for key, value in pairs])
        key, value = pairs[0]
        if key.partition(".")[0] not in (*NAMES, "hyperparameters"):
            assert resolved_value(experiment, key) == RESOLVED.get(key, value), case
    for key in ("zoom", "hyperparameters.zoom"):
        space = parse_experiment(text, "x.yaml", [as_setting(*pair) for pair in CASES[f"{key}.log"]]).space
        assert space.to_dict()["zoom"] == {"low": 0.2, "high": 0.45, "log": True}


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("data.path=a=b", "data.path", "a=b"),
        ("data.path=dir.d/x.y.zip", "data.path", "dir.d/x.y.zip"),
        ("data.path=with blanks", "data.path", "with blanks"),
        ("data.path='1'", "data.path", "1"),
        ('data.path="a # b: c"', "data.path", "a # b: c"),
        ("data.path=a#b", "data.path", "a#b"),
        ("data.path=Röntgen/肺炎", "data.path", "Röntgen/肺炎"),
        (" data.path = x ", "data.path", "x"),
        ("search.objective=[val_auc, parameters]", "search.objective", ["val_auc", "parameters"]),
        ("search.try=[{layers: 1}, {}]", "search.try", [{"layers": 1}, {}]),
        ("layers=[1, 2]", "layers", [1, 2]),
        ("layers={low: 1, high: 3}", "layers", {"low": 1, "high": 3}),
        ("search.confirm={top: 2}", "search.confirm.top", 2),
        ("search={trials: 9}", "search.trials", 9),
        ("search.outage=1e2", "search.outage", 100.0),
    ],
)
def test_a_value_is_yaml(setting: str, key: str, value: Any) -> None:
    assert resolved_value(parse_experiment("name: x\n", "x.yaml", [setting]), key) == value


def test_null_removes_a_key() -> None:
    text = """
        name: x
        data: {path: p}
        hyperparameters: {layers: [2, 3], dropout: {low: 0, high: 0.5, step: 0.1}}
        search: {trials: 7, keep: {best: 3}, confirm: {top: 2, seeds: 3}, objective: val_loss}
        promote: {max: val_f1, subject_to: {parameters: {max: 5}}, floors: {auc: 0.7, f1: 0.6}}
    """
    removed = [
        "data.path",
        "layers",
        "hyperparameters.dropout.step",
        "search.trials",
        "search.keep",
        "search.objective",
    ]
    removed += ["search.confirm.top", "promote.floors.auc", "promote.subject_to", "search.timeout", "data.phantom"]
    experiment = parse_experiment(text, "x.yaml", [f"{key}=null" for key in removed])
    bare = parse_experiment("name: x", "x.yaml")
    for key in ("data.path", "layers", "search.trials", "search.keep", "search.objective", "promote.subject_to"):
        assert resolved_value(experiment, key) == resolved_value(bare, key)
    assert resolved_value(experiment, "dropout") == {"low": 0.0, "high": 0.5}
    assert resolved_value(experiment, "search.confirm") == {"top": 3, "seeds": 3}
    assert resolved_value(experiment, "promote.floors") == {"f1": 0.6}


def examples() -> Iterator[tuple[str, list[str]]]:
    """Yield each line of a help text or a page that has `--set`, with its settings."""
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in (ROOT / "docs").rglob("*.md")}
    texts["README.md"] = (ROOT / "README.md").read_text()
    for verb in VERBS:
        module = import_module(f"pneumo.{verb}.__main__")
        command: Any = typer.main.get_command(module.app)
        texts[verb] = f"{command.help}\n{command.epilog}"
        for parameter in command.params:
            if "--set" in parameter.opts:  # its help has examples without the option's name
                named = re.findall(r"[a-z_.]+=[^\s,]+", parameter.help)
                texts[f"{verb} --set"] = "\n".join(f"--set {setting.rstrip('.')}" for setting in named)
    for place, text in texts.items():
        for line in text.splitlines():
            if "--set" in line and (found := re.findall(r"--set[ =]('[^']+'|\"[^\"]+\"|[^\s`'\"]+)", line)):
                yield f"{place}: {line.strip()}", [shlex.split(setting)[0] for setting in found]


def test_every_example_of_a_setting_is_right() -> None:
    found = {place: settings for place, settings in examples() if "KEY=VALUE" not in settings}
    assert any(place.startswith("promote --set") for place in found)
    assert any(place.startswith("search:") for place in found)
    for place, settings in found.items():
        try:
            parse_experiment("name: x", "x.yaml", settings)
        except RequestError as error:
            pytest.fail(f"{place}: {error}")


BLAME = {
    "the value itself": ("", ["layers=0"], "--set layers=0: input should be"),
    "the full key": ("", ["search.trials=0"], "--set search.trials=0: input should be"),
    "the last of two": ("", ["search.trials=0", "search.trials=-1"], "--set search.trials=-1: input"),
    "a value in it": ("", ["search.confirm={top: 0}"], "--set search.confirm={top: 0}: search.confirm.top: input"),
    "an unknown name in it": ("", ["search.confirm={tops: 3}"], "--set search.confirm={tops: 3}: there is no 'tops'"),
    "a deep key": (
        "",
        ["promote.floors.specifity=0.8"],
        "--set promote.floors.specifity=0.8: promote.floors: there is no",
    ),
    "a deep setting": (
        "",
        ["search.algorithm_settings.factr=3"],
        "--set search.algorithm_settings.factr=3: search.algorithm_settings: there is no 'factr'",
    ),
    "a deep range": ("", ["layers.lo=3"], "--set layers.lo=3: hyperparameters.layers: there is no 'lo'; did you mean"),
    "half a range": ("", ["layers.low=3"], "--set layers.low=3: hyperparameters.layers: needs low and high"),
    "below a value": ("", ["search.trials.x=3"], "--set search.trials.x=3: search.trials: input should be"),
    "below the file's value": (
        "search: {trials: 3}",
        ["search.trials.x=3"],
        "--set search.trials.x=3: search.trials is 3, which has no x",
    ),
    "with the file's value": (
        "search: {objective: parameters}",
        ["search.pruner=median"],
        "--set search.pruner=median: median needs an objective",
    ),
    "the other key of a pair": (
        "search: {pruner: median}",
        ["search.objective=parameters"],
        "--set search.objective=parameters: search.pruner: median needs an objective",
    ),
    "two together": (
        "",
        ["layers=4", "kernel_size=9"],
        "--set layers=4 --set kernel_size=9: hyperparameters: no candidate can be built",
    ),
    "each for itself": (
        "search: {pruner: median}",
        ["layers=2", "search.engine=keras-tuner", "search.objective=parameters"],
        "--set layers=2 --set search.engine=keras-tuner --set search.objective=parameters: search.pruner: ",
    ),
    "the file": ("data: {test: 2}", ["layers=2"], "x.yaml: data.test: input should be"),
    "the file's own value": ("search: {trials: 0}", ["search.seed=0"], "x.yaml: search.trials: input should be"),
    "the file's missing name": ("", ["name=null"], "--set name=null: is missing"),
    "the file's value for a block": ("search: {confirm: 3}", ["layers=2"], "x.yaml: search.confirm: needs keys"),
    "a long value": ("", [f"search.trials={'1' * 300}"], f"--set search.trials={'1' * 86}...{'1' * 100}: input"),
    "no key": ("", ["=3"], "--set =3: needs KEY=VALUE"),
    "no value": ("", ["layers"], "--set layers: needs KEY=VALUE"),
    "an empty value": ("", ["layers="], "--set layers=: has no value"),
    "a blank value": ("", ["layers= "], "--set layers= : has no value"),
    "an empty text": ("", ["data.path=''"], "--set data.path='': is empty"),
    "a comment": ("", ["data.allow_leaks=see ticket #12"], "YAML reads the text from # on as a comment"),
    "only a comment": ("", ["data.path=#12"], "YAML reads the text from # on as a comment"),
    "no YAML": ("", ["layers=[1"], "--set layers=[1: not valid YAML"),
    "deep YAML": ("", ["layers=" + "[" * 3000], "not valid YAML: nested more than 50 deep"),
    "long YAML": ("", ["layers=" + "1" * 100_000], "is longer than the 64 KiB"),
    "no such key": (
        "",
        ["search.prunner=median"],
        "--set search.prunner=median: there is no key 'search.prunner'; did you",
    ),
    "no such block": ("", ["serch.pruner=median"], "did you mean 'search.pruner'?"),
}


@pytest.mark.parametrize(("text", "settings", "message"), BLAME.values(), ids=BLAME.keys())
def test_a_fault_is_blamed_on_what_caused_it(text: str, settings: list[str], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_experiment(f"name: x\n{text}", "x.yaml", settings)
    (line,) = caught.value.lines
    assert message in line
    assert line.startswith("x.yaml: " if message.startswith("x.yaml") else "--set ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search.engine": "optuma"}, "--engine optuma: there is no 'optuma'; there is optuna, keras-tuner; did you"),
        ({"search.engine": "keras-tuner"}, "--engine keras-tuner: search.algorithm: there is no 'tpe' of engine keras"),
        ({"search.timeout": "soon"}, "--timeout soon: seconds, or a text such as 90s, 45m or 2h, got 'soon'"),
        ({"search.workers": "many"}, "--workers many: a number from 1 to 64, or auto, got 'many'"),
        ({"search.gpu_share": 0}, "--gpu-share 0: input should be greater than 0, got 0"),
        ({"search.workers": 65}, "--workers 65: a number from 1 to 64, or auto, got 65"),
        ({"search.trials": 100_001}, "--trials 100001: input should be less"),
        ({"name": "a/b"}, "--name a/b: letters, digits"),
        ({"name": "earlier"}, "--name earlier: search.from: a study cannot learn from its own trials"),
        ({"data.path": "  "}, "--data : is empty"),
    ],
)
def test_a_fault_of_an_option_names_the_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_experiment("name: x\nsearch: {algorithm: tpe, from: earlier}", "x.yaml", ["layers=2"], options)
    (line,) = caught.value.lines
    assert line.startswith(message)


def test_all_faults_are_told_at_once_each_with_its_own_origin(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("""
serch: {}
name: a/b
promote: {gate: best, floors: {specifity: 0.8, auc: 2}, max: val_acu, threshold: most, subject_to: {parameters: {}}}
hyperparameters: {layrs: 2, filters: [1, a], epochs: {low: 0, high: b}, dropout: {value: 0.1, when: {layer: 1}}}
data: {source: imagenet, test: 2}
search: {trials: -1, algorithm: tpee, pruner: foo, terminator: true, keep: {bset: 1}}
""")
    with pytest.raises(RequestError) as caught:
        read_experiment(file, ["search.patience=0", "foo=1"], {"search.workers": 99})
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1] == f"{file}: and 4 more faults"
    assert [line.replace(str(file), "x.yaml")[:40] for line in caught.value.lines[:3]] == [
        "x.yaml: search.terminator: was removed; ",
        "--set foo=1: there is no key 'foo'",
        "x.yaml: there is no 'serch'; did you mea",
    ]
    told = "\n".join(caught.value.lines)
    in_order = ["there is no 'serch'", "name: letters", "promote.gate: ", "promote.floors: ", "promote.floors.auc: "]
    in_order += ["promote.max: ", "promote.threshold: ", "promote.subject_to.parameters.max: ", "there is no 'layrs'"]
    in_order += ["hyperparameters.filters: ", "hyperparameters.epochs.low: ", "hyperparameters.epochs.high: "]
    in_order += ["hyperparameters.dropout.when: ", "data.source: ", "data.test: ", "search.trials: "]
    positions = [told.index(text) for text in in_order]
    assert positions == sorted(positions)


def test_faults_of_several_blocks_and_of_their_combination_are_told_together() -> None:
    text = """
        name: x
        data: {test: 2}
        hyperparameters: {filters: [2, 4]}
        search: {algorithm: cmaes, objective: [val_auc, parameters], pruner: median, from: x, try: [{layers: 99}, {epochs: 3}]}
        promote: {gate: best}
    """
    with pytest.raises(RequestError) as caught:
        parse_experiment(text, "x.yaml")
    assert [line.split(": ")[1] for line in caught.value.lines] == [
        "data.test",
        "search.algorithm",
        "search.pruner",
        "promote.gate",
    ]
    with pytest.raises(RequestError) as caught:
        parse_experiment(text, "x.yaml", ["search.pruner=none", "search.objective=val_auc", "data.test=0.2"])
    assert [line.split(": ")[1] for line in caught.value.lines] == [
        "hyperparameters.filters",
        "search.from",
        "search.try[0].layers",
        "search.try[1].epochs",
        "promote.gate",
    ]
