"""The experiment file: what it may say, and one clear line for what it may not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from pneumo.spec.algorithms import that_take
from pneumo.spec.errors import RequestError
from pneumo.spec.hyperparameters import NAMES, Value
from pneumo.spec.promotion import PromoteSpec
from pneumo.spec.search import ConfirmSpec, KeepSpec, SearchSpec, one_of
from pneumo.spec.space import Choice, Range, Space, describe_fault, nearest, read_space

SOURCES: tuple[str, ...] = ("kaggle", "folder", "medmnist", "phantom")

MOST_COMBINATIONS = 10_000
"""Of a grid."""


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


ClassName = Annotated[str, Field(min_length=1, max_length=60, description="the name of a class's folder")]


class PhantomSpec(_Block):
    """How many phantoms are generated, how large, from which seed."""

    patients: Annotated[int, Field(ge=8, le=20_000, description="patients; each has one to four pictures")] = 300
    size: Annotated[int, Field(ge=64, le=224, description="side of a phantom, pixels")] = 96
    seed: Annotated[int, Field(ge=0, lt=2**31, description="seed of the phantoms")] = 0


class DataSpec(_Block):
    """Where the pictures come from."""

    source: Annotated[
        str, Field(description="where the pictures come from", json_schema_extra={"enum": [*SOURCES]})
    ] = "kaggle"
    path: Annotated[str | None, Field(description="a folder, a zip or an npz; --data replaces it")] = None
    classes: Annotated[
        tuple[ClassName, ClassName] | None,
        Field(description="source folder: the folders' names, the negative one first"),
    ] = None
    test: Annotated[
        float,
        Field(
            gt=0,
            lt=0.9,
            description="source folder: share of the patients for the test part, if there is no test folder",
        ),
    ] = 0.15
    validation: Annotated[float, Field(gt=0, lt=0.9, description="share of the training pictures' patients")] = 0.12
    allow_leaks: Annotated[
        str | None,
        Field(
            min_length=8, max_length=500, description="reason to start a study although training and test pictures leak"
        ),
    ] = None
    phantom: Annotated[PhantomSpec, Field(description="source phantom: the generated pictures")] = PhantomSpec()


class Experiment(_Block):
    """One study, as its YAML file says it. `space` is the parsed `hyperparameters` block."""

    name: Annotated[str, Field(min_length=1, max_length=100, description="name of the study; --name replaces it")]
    data: Annotated[DataSpec, Field(description="the pictures")] = DataSpec()
    hyperparameters: Annotated[
        dict[str, Any], Field(description="the space; a hyperparameter that is left out has the tutorial's value")
    ] = Field(default_factory=dict)
    search: Annotated[SearchSpec, Field(description="the search")] = Field(default_factory=SearchSpec)
    promote: Annotated[PromoteSpec, Field(description="the best trial and its promotion")] = PromoteSpec()
    _space: Space = PrivateAttr()
    _first: tuple[dict[str, Value], ...] = PrivateAttr()

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
        one_of("data.source", self.data.source, SOURCES)
        self._space = read_space(self.hyperparameters)
        self._check_algorithm()
        own = (self._space.baseline(),) if self.search.baseline else ()
        known = [self._space.complete(given, f"search.try[{n}]") for n, given in enumerate(self.search.try_)]
        self._first = (*own, *known)
        if self.search.from_ == self.name:
            raise ValueError("search.from: a study cannot begin with its own trials; name an earlier one")
        return self

    def _check_algorithm(self) -> None:
        """Refuses a space that the algorithm cannot take, and says which can."""
        search, takes = self.search, self.search.takes
        name = f"{search.engine}/{search.algorithm}"
        for dimension in self._space.searched:
            where = f"hyperparameters.{dimension.name}"
            if not takes.ranges and isinstance(dimension, Range) and dimension.values is None:
                raise ValueError(f"{where}: a grid needs a step or a list, not a continuous range")
            if not takes.choices and isinstance(dimension, Choice):
                raise ValueError(
                    f"{where}: {name} takes no choices; give a range, fix it, or take {that_take(search.engine, 'choices')}"
                )
            if not takes.conditions and set(dimension.when) & {d.name for d in self._space.searched}:
                others = that_take(search.engine, "conditions")
                raise ValueError(f"{where}: {name} takes no conditions; leave when out, or take {others}")
            if not takes.epochs and dimension.name == "epochs":
                raise ValueError(f"{where}: {name} decides itself how long a trial trains; fix it, as epochs: 10")
        if not takes.ranges and sum(1 for _ in islice(self._space.grid(), MOST_COMBINATIONS + 1)) > MOST_COMBINATIONS:
            raise ValueError(f"hyperparameters: a grid of at most {MOST_COMBINATIONS} combinations; take fewer values")

    @property
    def space(self) -> Space:
        return self._space

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Every side in pixels that a trial can ask for, the baseline among them, smallest first."""
        own = [int(self._space.baseline()["image_size"])] if self.search.baseline else []
        return tuple(sorted({*self._space.image_sizes(), *own}))

    @property
    def first_candidates(self) -> tuple[dict[str, Value], ...]:
        """What is tried before the engine proposes: the baseline, if wanted, and the known configurations."""
        return self._first

    def to_yaml(self) -> str:
        """The resolved experiment: every setting, also those the file leaves out."""
        resolved = self.model_dump(
            mode="json", by_alias=True, exclude={"data": {"phantom"}} if self.data.source != "phantom" else None
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
    return parsed_experiment(text, str(path), settings, options)


def parsed_experiment(
    text: str, where: str, settings: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Experiment:
    """The experiment that a YAML text describes, as `read_experiment` reads a file; `where` opens the line of an error."""
    document = _parsed(text, where)
    if isinstance(document, dict):
        for setting in settings:
            _lay(document, *_setting(setting))
        for key, value in (options or {}).items():
            _lay(document, key.split("."), value)
        data = document.get("data")
        if "data.path" in (options or {}) and isinstance(data, dict) and not _chosen(settings):
            document["data"] = _of_path(data)
    return make_experiment(document, where)


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


def setting_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two resolved experiments, as `search.pruner was none, now median`.

    What may change from one run of a study to the next (when it or a trial ends, what is confirmed, how the best is chosen,
    what is kept, workers, where the data lies) does not count.
    """
    found = []
    free = {
        f"search.{key}"
        for key in (
            "trials",
            "timeout",
            "patience",
            "terminator",
            "max_failures",
            "outage",
            "confirm",
            "keep",
            "workers",
        )
    }
    free |= {"search.trial_timeout", "data.path", "data.allow_leaks"}
    flat_before, flat_now = _flat(before), _flat(now)
    for key in sorted(set(flat_before) | set(flat_now)):
        old, new = flat_before.get(key), flat_now.get(key)
        if old != new and key not in free and not key.startswith("promote."):
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
        "search.": _keys(SearchSpec),
        "search.confirm.": _keys(ConfirmSpec),
        "search.keep.": _keys(KeepSpec),
        "promote.": _keys(PromoteSpec),
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


def _first(error: ValidationError) -> str:
    """The first fault as `key: what would be right, got what`."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known: dict[str, type[BaseModel]] = {
            "": Experiment,
            "data": DataSpec,
            "search": SearchSpec,
            "search.confirm": ConfirmSpec,
            "search.keep": KeepSpec,
            "promote": PromoteSpec,
            "data.phantom": PhantomSpec,
        }
        block, _, name = key.rpartition(".")
        near = nearest(name, _keys(known[block])) if block in known else ""
        return f"{block + ': ' if block else ''}there is no {name!r}{near}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "value_error":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{key}.{message}" if key else message
    return f"{key}: {describe_fault(fault)}"


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys of a block, as a file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]
