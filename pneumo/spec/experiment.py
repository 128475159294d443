"""The experiment: what a study searches, on which pictures, and what is promoted."""

from __future__ import annotations

import re
from itertools import islice
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from pneumo.spec.algorithms import algorithms_supporting
from pneumo.spec.hyperparameters import Value
from pneumo.spec.promotion import PromoteSpec
from pneumo.spec.search import SearchSpec, check_known
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
    _space: Space = PrivateAttr()
    _first_candidates: tuple[dict[str, Value], ...] = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _replace_empty_blocks(cls, values: Any) -> Any:
        """Replace a block without content, which YAML reads as null, by an empty one."""
        if isinstance(values, dict):
            return {key: {} if value is None and key != "name" else value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", self.name):
            raise ValueError(f"name: letters, digits, '.', '_' and '-' only, as in 'article-2', got {self.name!r}")
        check_known("data.source", self.data.source, SOURCES)
        self._space = read_space(self.hyperparameters)
        self._check_algorithm()
        baseline = [self._space.baseline()] if self.search.baseline else []
        configurations = [self._space.complete(given, f"search.try[{n}]") for n, given in enumerate(self.search.try_)]
        self._first_candidates = (*baseline, *configurations)
        if self.search.from_ == self.name:
            raise ValueError("search.from: a study cannot learn from its own trials; name an earlier study")
        return self

    def _check_algorithm(self) -> None:
        """Raise `ValueError` if the algorithm does not support the space. The message says which algorithms do."""
        engine, capabilities = self.search.engine, self.search.capabilities
        name = f"{engine}/{self.search.algorithm}"
        searched_names = {dimension.name for dimension in self._space.searched}
        for dimension in self._space.searched:
            where = f"hyperparameters.{dimension.name}"
            if not capabilities.ranges and isinstance(dimension, Range) and dimension.values is None:
                raise ValueError(f"{where}: a grid needs a step or a list, not a continuous range")
            if not capabilities.choices and isinstance(dimension, Choice):
                others = algorithms_supporting(engine, "choices")
                raise ValueError(f"{where}: {name} supports no choices; give a range, fix it, or use {others}")
            if not capabilities.conditions and set(dimension.when) & searched_names:
                others = algorithms_supporting(engine, "conditions")
                raise ValueError(f"{where}: {name} supports no conditions; leave out when, or use {others}")
            if not capabilities.epochs and dimension.name == "epochs":
                raise ValueError(f"{where}: {name} decides itself how long a trial trains; fix it, as epochs: 10")
        if capabilities.ranges:
            return
        if sum(1 for _ in islice(self._space.grid(), MOST_COMBINATIONS + 1)) > MOST_COMBINATIONS:
            raise ValueError(f"hyperparameters: a grid has at most {MOST_COMBINATIONS} combinations; give fewer values")

    @property
    def space(self) -> Space:
        """The space that the `hyperparameters` block describes."""
        return self._space

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """The image sizes of all trials, the baseline included: sides in pixels, smallest first."""
        baseline_sizes = [int(self._space.baseline()["image_size"])] if self.search.baseline else []
        return tuple(sorted({*self._space.image_sizes(), *baseline_sizes}))

    @property
    def first_candidates(self) -> tuple[dict[str, Value], ...]:
        """The hyperparameters of the first trials, before the algorithm proposes: the baseline and `search.try`."""
        return self._first_candidates

    def to_yaml(self) -> str:
        """Return the resolved experiment as YAML text. It has every setting, including those that the file leaves out."""
        exclude = {"data": set(GENERATED_SOURCES) - {self.data.source}}
        resolved = self.model_dump(mode="json", by_alias=True, exclude=exclude)
        resolved["hyperparameters"] = self.space.to_dict()
        return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
