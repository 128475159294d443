"""The experiment file: what it may say, and one clear line for what it may not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from pneumo.spec.errors import RequestError
from pneumo.spec.hyperparameters import NAMES
from pneumo.spec.objective import EPOCH_OBJECTIVES, OBJECTIVES
from pneumo.spec.space import Range, Space, nearest, read_space, said

ALGORITHMS: dict[str, tuple[str, ...]] = {"optuna": ("tpe", "random", "grid")}
"""The engines there are, and the algorithms of each."""

PRUNERS: tuple[str, ...] = ("none", "median", "hyperband")
SOURCES: tuple[str, ...] = ("kaggle", "folder", "medmnist", "phantom")

MOST_COMBINATIONS = 10_000
"""Of a grid."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> Any:
    """`90`, `"90s"`, `"45m"`, `"2h"` or `"1d"` as seconds; anything else as it is, for pydantic to refuse."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", value)):
        return float(match[1]) * _UNITS[match[2] or "s"]
    return value


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


ClassName = Annotated[str, Field(min_length=1, max_length=60, description="the name of a class's folder")]


class PhantomSpec(_Block):
    """How many phantoms are generated, how large, from which seed."""

    patients: Annotated[int, Field(ge=8, le=20_000, description="patients; each has one to four pictures")] = 300
    size: Annotated[int, Field(ge=64, le=224, description="side of a phantom, pixels")] = 96
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class DataSpec(_Block):
    """Where the pictures come from."""

    source: str = "kaggle"
    path: Annotated[str | None, Field(description="a folder, a zip or an npz; --data replaces it")] = None
    classes: Annotated[
        tuple[ClassName, ClassName] | None,
        Field(description="source folder: the folders' names, the negative one first"),
    ] = None
    test: Annotated[
        float, Field(gt=0, lt=0.9, description="source folder: share of the patients, where there is no test folder")
    ] = 0.15
    validation: Annotated[float, Field(gt=0, lt=0.9, description="share of the training pictures' patients")] = 0.12
    allow_leaks: Annotated[
        str | None, Field(min_length=8, max_length=500, description="why a study may start on leaking pictures")
    ] = None
    phantom: PhantomSpec = PhantomSpec()


class SearchSpec(_Block):
    """Who proposes, what for, and for how long."""

    engine: str = "optuna"
    algorithm: str = "tpe"
    pruner: str = "none"
    objective: str = "val_auc"
    trials: Annotated[int, Field(ge=1, le=100_000)] = 30
    timeout: Annotated[float | None, BeforeValidator(seconds), Field(gt=0, description="seconds, or 90m, 2h")] = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    baseline: Annotated[bool, Field(description="begin with the tutorial's own network")] = True
    workers: Annotated[int, Field(ge=1, le=64, description="trials under way at once")] = 1

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if isinstance(values.get("objective"), list):
            if len(values["objective"]) != 1:
                raise ValueError("objective: one objective; several at once are not supported")
            values = values | {"objective": values["objective"][0]}
        engine = _one_of("engine", values.get("engine", "optuna"), tuple(ALGORITHMS))
        _one_of("algorithm", values.get("algorithm", "tpe"), ALGORITHMS[engine], f" of engine {engine}")
        pruner = _one_of("pruner", values.get("pruner", "none"), PRUNERS)
        objective = _one_of("objective", values.get("objective", "val_auc"), tuple(OBJECTIVES))
        if pruner != "none" and objective not in EPOCH_OBJECTIVES:
            raise ValueError(
                f"pruner: {pruner} needs an objective that is known after each epoch ({', '.join(EPOCH_OBJECTIVES)}), "
                f"got {objective}; take pruner: none"
            )
        return values


class Experiment(_Block):
    """One study, as its YAML file says it. `space` is the parsed `hyperparameters` block."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    data: DataSpec = DataSpec()
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    search: SearchSpec = Field(default_factory=SearchSpec)
    _space: Space = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _empty_blocks(cls, values: Any) -> Any:
        """A block with nothing under it is an empty one, as `hyperparameters:` alone is the tutorial's network."""
        if isinstance(values, dict):
            return {key: {} if value is None and key != "name" else value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", self.name):
            raise ValueError(f"name: letters, digits, '.', '_' and '-' only, as in 'article-2', got {self.name!r}")
        if self.data.source not in SOURCES:
            raise ValueError(_unknown("data.source", self.data.source, SOURCES))
        self._space = read_space(self.hyperparameters)
        if self.search.algorithm == "grid":
            for dimension in self._space.searched:
                if isinstance(dimension, Range) and dimension.values is None:
                    raise ValueError(
                        f"hyperparameters.{dimension.name}: a grid needs a step or a list, not a continuous range"
                    )
            if sum(1 for _ in islice(self._space.grid(), MOST_COMBINATIONS + 1)) > MOST_COMBINATIONS:
                raise ValueError(
                    f"hyperparameters: a grid of at most {MOST_COMBINATIONS} combinations; take fewer values"
                )
        return self

    @property
    def space(self) -> Space:
        return self._space

    def to_yaml(self) -> str:
        """The resolved experiment: every setting, also those the file leaves out."""
        resolved = self.model_dump(
            mode="json", exclude={"data": {"phantom"}} if self.data.source != "phantom" else None
        )
        resolved["hyperparameters"] = self.space.describe()
        return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def read_experiment(path: Path, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment in a YAML file, with `KEY=VALUE` settings laid over it, and over those `options` by dotted key.

    A `data.path` among the options is a path to real pictures, also where the file takes phantoms; an `.npz` is MedMNIST's,
    whatever source the file takes. Raises `RequestError` with the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError(f"{path}: there is no such experiment file; experiments/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None
    document = _parsed(text, str(path))
    if isinstance(document, dict):
        for setting in settings:
            _lay(document, *_setting(setting))
        for key, value in (options or {}).items():
            _lay(document, key.split("."), value)
        data = document.get("data")
        if "data.path" in (options or {}) and isinstance(data, dict) and not _chosen(settings):
            document["data"] = _of_path(data)
    return make_experiment(document, str(path))


def _chosen(settings: Sequence[str]) -> bool:
    return any(setting.partition("=")[0].strip() == "data.source" for setting in settings)


def _of_path(data: dict[str, Any]) -> dict[str, Any]:
    """The data block with the source that its path is for."""
    if str(data["path"]).lower().endswith(".npz"):
        source = "medmnist"
    elif data.get("source") in ("phantom", "medmnist"):
        source = "kaggle"
    else:
        return data
    return {key: value for key, value in data.items() if key != "phantom"} | {"source": source}


def make_experiment(document: Any, where: str) -> Experiment:
    """The experiment that a document (as YAML gives it) describes; `where` opens the line of an error."""
    if not isinstance(document, dict):
        raise RequestError(f"{where}: wants keys with values, beginning with 'name: ...'")
    try:
        return Experiment.model_validate(document)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    except ValidationError as error:
        raise RequestError(f"{where}: {_first(error)}") from None


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two resolved experiments, as `search.pruner was none, now median`.

    What may change from one run of a study to the next (trials, timeout, workers, where the data lies) does not count.
    """
    found = []
    free = {"search.trials", "search.timeout", "search.workers", "data.path", "data.allow_leaks"}
    flat_before, flat_now = _flat(before), _flat(now)
    for key in sorted(set(flat_before) | set(flat_now)):
        old, new = flat_before.get(key), flat_now.get(key)
        if old != new and key not in free:
            found.append(f"{key} was {_inline(old)}, now {_inline(new)}")
    return found


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{block}.{key}": value
        for block, body in document.items()
        if isinstance(body, dict)
        for key, value in body.items()
    }


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (`1e-4` is one; YAML 1.1 reads a text) and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        raise RequestError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, TypeError) as error:
        raise RequestError(f"{where}: not valid YAML: {error}") from None


def _setting(setting: str) -> tuple[list[str], Any]:
    """`layers=2` or `search.pruner=median` as the keys from the top and the value."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RequestError(f"--set {setting}: wants KEY=VALUE, as in --set layers=2 or --set search.pruner=median")
    blocks: dict[str, Sequence[str]] = {
        "": ["name"],
        "data.": list(DataSpec.model_fields),
        "data.phantom.": list(PhantomSpec.model_fields),
        "search.": list(SearchSpec.model_fields),
        "hyperparameters.": NAMES,
    }
    known = [block + name for block, names in blocks.items() for name in names]
    if key not in known and key not in NAMES:
        raise RequestError(f"--set {setting}: there is no key {key!r}{nearest(key, [*known, *NAMES])}")
    return ["hyperparameters", key] if key in NAMES else key.split("."), _parsed(text, f"--set {setting}")


def _lay(document: dict[str, Any], keys: list[str], value: Any) -> None:
    *blocks, last = keys
    for block in blocks:
        if document.get(block) is None:
            document[block] = {}
        document = document[block]
        if not isinstance(document, dict):
            return  # the file itself is wrong there, which reading it will say
    document[last] = value


def _one_of(key: str, value: Any, known: tuple[str, ...], of: str = "") -> str:
    if value not in known:
        raise ValueError(_unknown(key, value, known, of))
    return str(value)


def _unknown(key: str, value: Any, known: tuple[str, ...], of: str = "") -> str:
    return f"{key}: there is no {value!r}{of}; there is {', '.join(known)}{nearest(str(value), known)}"


def _first(error: ValidationError) -> str:
    """The first fault as `key: what would be right, got what`."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known: dict[str, type[BaseModel]] = {
            "": Experiment,
            "data": DataSpec,
            "search": SearchSpec,
            "data.phantom": PhantomSpec,
        }
        block, _, name = key.rpartition(".")
        return f"{block + ': ' if block else ''}there is no {name!r}{nearest(name, list(known[block].model_fields))}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "value_error":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{key}.{message}" if key else message
    return f"{key}: {said(fault)}"
