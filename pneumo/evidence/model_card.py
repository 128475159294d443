"""A model card: what a registered model is, what it was judged by, where its limits are. Markdown.

Source: M. Mitchell and others, Model Cards for Model Reporting, FAT* 2019, arXiv:1810.03993.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pneumo.evidence.gate import Gate
from pneumo.evidence.intervals import Interval

NO_DEVICE = "**No medical device.** For research and teaching; nothing that it says may be used for diagnosis."


@dataclass(frozen=True)
class Facts:
    """What a card tells, as short sentences or values.

    `parts`: of training, validation and test, what they hold. `searched`: how the study searched. `hyperparameters`: those
    of the trial that were searched. `operating`: threshold and temperature, and how they were found. `warnings`: what a
    reader must know before the figures.
    """

    title: str
    classes: tuple[str, str]
    data: str
    parts: Mapping[str, str]
    searched: str
    hyperparameters: Mapping[str, str]
    parameters: int
    operating: str
    phantom: bool
    warnings: Sequence[str] = ()


def card(facts: Facts, figures: Mapping[str, Interval], gate: Gate) -> str:
    """The card of a model with its figures on the test pictures and what the gate said."""
    negative, positive = facts.classes
    pictures = "generated **phantoms**, which are no X-rays" if facts.phantom else "chest X-rays"
    lines = [f"# {facts.title}", NO_DEVICE]
    if facts.phantom:
        lines.append("It was trained and judged on **phantoms**: its figures say nothing about patients.")
    lines += facts.warnings
    lines += [
        "## What it is",
        f"A convolutional network of {facts.parameters:,} parameters, trained on {pictures}. It takes a picture of any size "
        f"(JPEG, PNG, DICOM or an array) and gives the probability of {positive}, as against {negative}. {facts.operating}",
        "## Data",
        f"{facts.data}, split by patient.",
        _table(("part", "pictures"), [(part, held) for part, held in facts.parts.items()]),
        "## How it was found",
        facts.searched,
        _table(("hyperparameter", "value"), list(facts.hyperparameters.items())) if facts.hyperparameters else "",
        "## On the test pictures",
        "They were sealed while the study searched. Intervals: 95 %, bootstrap by patient.",
        _table(("figure", "value", "95 % interval"), [(name_of(n), *shown_interval(i)) for n, i in figures.items()]),
        f"Compared with {gate.against}:" if gate.auc_difference else f"Compared with nothing: {gate.against}.",
        "\n".join(f"- {'passed' if check.passed else '**refused**'}: {check.said}" for check in gate.checks),
        "## Limits",
        "\n".join(
            (
                "- The pictures are of one source; other machines, hospitals, ages or diseases were not tried.",
                "- The labels are those of the data set and may be wrong; the network tells two classes and no other finding.",
                f"- The test pictures' share of {positive} is that of the data set, and precision follows it.",
            )
        ),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def name_of(figure: str) -> str:
    """A figure as people write it."""
    return {"auc": "AUC", "f1": "F1", "brier": "Brier score"}.get(figure, figure.replace("_", " "))


def shown_interval(interval: Interval) -> tuple[str, str]:
    """The value and the interval, to four places."""
    value = "not defined" if math.isnan(interval.value) else f"{interval.value:.4f}"
    return value, "-" if math.isnan(interval.low) else f"{interval.low:.4f} to {interval.high:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
