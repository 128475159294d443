"""The experiment: what a study searches, on which pictures, and what is promoted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from pneumo.spec.algorithms import algorithms_supporting
from pneumo.spec.compute import ComputeSpec
from pneumo.spec.errors import Fault, SettingError, check_known, collect_faults
from pneumo.spec.hyperparameters import Value
from pneumo.spec.objective import STRESS_OBJECTIVES
from pneumo.spec.promotion import PromoteSpec
from pneumo.spec.search import SearchSpec
from pneumo.spec.sources import DEFAULT_SOURCE, GENERATED_SOURCES, SOURCES
from pneumo.spec.space import Choice, Range, Space
from pneumo.spec.space_reader import read_space

MOST_COMBINATIONS = 10_000
"""Largest number of combinations of a grid."""


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


ClassName = Annotated[str, Field(min_length=1, max_length=60, description="Name of the folder of a class.")]


class PhantomSpec(_Block):
    """The phantoms that the source `phantom` generates."""

    patients: Annotated[
        int, Field(ge=8, le=20_000, description="Number of patients. Each has one to four pictures.")
    ] = 300
    size: Annotated[int, Field(ge=64, le=224, description="Side of the square phantoms in pixels.")] = 96
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the phantoms.")] = 0


class DataSpec(_Block):
    """The `data` block of an experiment: where the pictures come from and how they are divided."""

    source: Annotated[
        str,
        Field(
            description="Layout of the pictures: kaggle is the data set chest-xray-pneumonia, folder is a folder or zip with "
            "a folder for each class, medmnist is an npz file of MedMNIST, phantom generates artificial pictures.",
            json_schema_extra={"enum": list(SOURCES)},
        ),
    ] = DEFAULT_SOURCE
    path: Annotated[
        str | None,
        Field(
            description="Path of the pictures: a folder, a zip or an npz file. A relative path starts at the current "
            "folder. The option --data replaces it."
        ),
    ] = None
    classes: Annotated[
        tuple[ClassName, ClassName] | None,
        Field(
            description="For the source folder: names of the folders of the two classes, the negative class first. null "
            "means NORMAL and PNEUMONIA."
        ),
    ] = None
    test: Annotated[
        float,
        Field(
            gt=0,
            lt=0.9,
            description="For the source folder: fraction of the patients whose pictures are the test pictures, if there is "
            "no test folder.",
        ),
    ] = 0.15
    validation: Annotated[
        float,
        Field(
            gt=0,
            lt=0.9,
            description="Fraction of the patients outside the test set whose pictures are used for validation.",
        ),
    ] = 0.12
    allow_leaks: Annotated[
        str | None,
        Field(
            min_length=8,
            max_length=500,
            description="Reason why the study may use pictures although the audit found leaks between training and test "
            "pictures. null means that it may not.",
        ),
    ] = None
    phantom: Annotated[PhantomSpec, Field(description="For the source phantom: the phantoms to generate.")] = (
        PhantomSpec()
    )

    @field_validator("path", "allow_leaks")
    @classmethod
    def _check_text(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise SettingError(Fault((), "is empty; give a text, or leave the key out"))
        return text

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, source: Any) -> str:
        return check_known(source, SOURCES)


def _unsupported_dimensions(search: SearchSpec, space: Space) -> Iterator[Fault]:
    """Yield a fault for each dimension that the algorithm does not support. The message says which algorithms do."""
    engine, capabilities = search.engine, search.capabilities
    name = f"{engine}/{search.algorithm}"
    searched_names = {dimension.name for dimension in space.searched}
    has_continuous_range = False
    for dimension in space.searched:
        where = (dimension.name,)
        if not capabilities.ranges and isinstance(dimension, Range) and dimension.count is None:
            has_continuous_range = True
            yield Fault(where, "a grid needs a step or a list, not a continuous range")
        if not capabilities.choices and isinstance(dimension, Choice):
            others = algorithms_supporting(engine, "choices")
            yield Fault(where, f"{name} supports no choices; give a range, fix it, or use {others}")
        if not capabilities.conditions and set(dimension.when) & searched_names:
            others = algorithms_supporting(engine, "conditions")
            yield Fault(where, f"{name} supports no conditions; leave out when, or use {others}")
        if not capabilities.epochs and dimension.name == "epochs":
            yield Fault(where, f"{name} decides itself how long a trial trains; fix it, as epochs: 10")
    if capabilities.ranges or has_continuous_range:
        return
    if sum(1 for _ in islice(space.grid(), MOST_COMBINATIONS + 1)) > MOST_COMBINATIONS:
        yield Fault((), f"a grid has at most {MOST_COMBINATIONS} combinations; give fewer values")


class Experiment(_Block):
    """An experiment, as its YAML file describes it."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            description="Name of the study: letters, digits, '.', '_' and '-'. It starts and ends with a letter or digit.",
        ),
    ]
    data: Annotated[DataSpec, Field(description="Where the pictures come from and how they are divided.")] = DataSpec()
    hyperparameters: Annotated[
        dict[str, Any],
        Field(
            description="Space of the study, by hyperparameter: a value, a list of values, or a mapping with low and high "
            "(optionally step or log), values or value, and optionally when. Those that are left out have the tutorial's "
            "value."
        ),
    ] = Field(default_factory=dict)
    search: Annotated[SearchSpec, Field(description="What is optimized, by which algorithm, for how long.")] = Field(
        default_factory=SearchSpec
    )
    promote: Annotated[
        PromoteSpec, Field(description="Which trial is promoted, its operating point, and the gate that it must pass.")
    ] = PromoteSpec()
    compute: Annotated[ComputeSpec, Field(description="With --ray: what each trial takes of the cluster.")] = (
        ComputeSpec()
    )

    @model_validator(mode="before")
    @classmethod
    def _replace_empty_blocks(cls, values: Any) -> Any:
        """Replace a block without content, which YAML reads as null, by an empty one."""
        if isinstance(values, dict):
            return {key: {} if value is None and key != "name" else value for key, value in values.items()}
        return values

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            raise SettingError(Fault((), f"letters, digits, '.', '_' and '-' only, as in 'article-2', got {name!r}"))
        return name

    @field_validator("hyperparameters")
    @classmethod
    def _check_space(cls, block: dict[str, Any]) -> dict[str, Any]:
        read_space(block)
        return block

    @field_validator("search")
    @classmethod
    def _check_search(cls, search: SearchSpec, info: ValidationInfo) -> SearchSpec:
        """Check what depends on the name of the study or on its space, if those are right."""
        faults: list[Fault] = []
        if search.from_ is not None and search.from_ == info.data.get("name"):
            faults.append(Fault(("from",), "a study cannot learn from its own trials; name an earlier study"))
        if "hyperparameters" in info.data:
            space = read_space(info.data["hyperparameters"])
            for fault in _unsupported_dimensions(search, space):
                faults.append(fault.below("..", "hyperparameters"))
            for n, given in enumerate(search.try_):
                with collect_faults(faults, "try", n):
                    space.complete(given)
        if faults:
            raise SettingError(*faults)
        return search

    @field_validator("promote")
    @classmethod
    def _check_promote(cls, promote: PromoteSpec, info: ValidationInfo) -> PromoteSpec:
        """Check that the metrics of the rule are recorded."""
        search, rule = info.data.get("search"), promote.rule
        if search is None or search.stress or rule is None:
            return promote
        places: dict[tuple[str, ...], str] = {("min" if rule.max is None else "max",): rule.metric}
        places |= {("subject_to", metric): metric for metric in rule.subject_to}
        faults = [
            Fault(place, f"{metric} is a figure of the stress suite, which search.stress: false leaves out")
            for place, metric in places.items()
            if metric in STRESS_OBJECTIVES
        ]
        if faults:
            raise SettingError(*faults)
        return promote

    @cached_property
    def space(self) -> Space:
        """The space that the `hyperparameters` block describes."""
        return read_space(self.hyperparameters)

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """The image sizes of all trials, the baseline included: sides in pixels, smallest first."""
        baseline_sizes = [int(self.space.baseline()["image_size"])] if self.search.baseline else []
        return tuple(sorted({*self.space.image_sizes(), *baseline_sizes}))

    @property
    def prediction_passes(self) -> int:
        """Largest number of passes of the network that a prediction takes in any trial: 2 if one may average mirror images."""
        return 2 if True in self.space.possible_values("flip_average") else 1

    @cached_property
    def first_candidates(self) -> tuple[dict[str, Value], ...]:
        """The hyperparameters of the first trials, before the algorithm proposes: the baseline and `search.try`."""
        baseline = [self.space.baseline()] if self.search.baseline else []
        return (*baseline, *map(self.space.complete, self.search.try_))

    def to_yaml(self) -> str:
        """Return the resolved experiment as YAML text. It has every setting, including those that the file leaves out."""
        exclude = {"data": set(GENERATED_SOURCES) - {self.data.source}}
        resolved = self.model_dump(mode="json", by_alias=True, exclude=exclude)
        resolved["hyperparameters"] = self.space.to_dict()
        return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
