"""The card of a registered model, in Markdown: what it is, how it was evaluated, and its limits.

Source: M. Mitchell and others, Model Cards for Model Reporting, FAT* 2019, arXiv:1810.03993.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pneumo.evidence.gate import Gate
from pneumo.evidence.intervals import Interval, interval_unit

NOT_A_DEVICE = "**Not a medical device.** For research and teaching only; do not use its output for diagnosis."


@dataclass(frozen=True)
class ModelFacts:
    """The facts that a model card states, as short sentences or values.

    Attributes:
        title: Title of the card.
        classes: The negative and the positive class.
        data: Description of the data set.
        patients: How the patients are known.
        split_unit: What the split and the intervals go by, as `interval_unit` says: the patient, if it is known.
        parts: What each part (training, validation, test) contains.
        search: How the study searched.
        hyperparameters: The trial's values of the hyperparameters that were searched.
        parameters: Number of the network's parameters.
        operating_point: Threshold and temperature, and how they were chosen.
        phantom: Whether the pictures are generated phantoms.
        warnings: What the reader must know before the figures.
    """

    title: str
    classes: tuple[str, str]
    data: str
    patients: str
    split_unit: str
    parts: Mapping[str, str]
    search: str
    hyperparameters: Mapping[str, str]
    parameters: int
    operating_point: str
    phantom: bool
    warnings: Sequence[str] = ()


def model_card(facts: ModelFacts, figures: Mapping[str, Interval], gate: Gate) -> str:
    """Return the card of a model.

    Args:
        facts: The facts about the model.
        figures: Its figures on the test pictures.
        gate: The decision about its promotion.

    Returns:
        The card as Markdown.
    """
    negative, positive = facts.classes
    pictures = "generated **phantoms**, which are not X-rays" if facts.phantom else "chest X-rays"
    known = facts.split_unit == interval_unit(0, 0)
    narrow = (
        "" if known else " If a patient has several pictures, the figures may be too good and the intervals too narrow."
    )
    lines = [f"# {facts.title}", NOT_A_DEVICE]
    if facts.phantom:
        lines.append("It was trained and evaluated on **phantoms**; its figures say nothing about patients.")
    lines += facts.warnings
    lines += [
        "## Model",
        f"A convolutional network of {facts.parameters:,} parameters, trained on {pictures}. Its input is a picture of any "
        f"size (JPEG, PNG, DICOM or an array), its output the probability of {positive} as opposed to {negative}. "
        f"{facts.operating_point}",
        "## Data",
        f"{facts.data}, split {facts.split_unit}. Patients: {facts.patients}.",
        _table(("part", "pictures"), list(facts.parts.items())),
        "## Search",
        facts.search,
        _table(("hyperparameter", "value"), list(facts.hyperparameters.items())) if facts.hyperparameters else "",
        "## Results on the test pictures",
        f"The test pictures were sealed during the search. The intervals are 95 % bootstrap intervals {facts.split_unit}."
        f"{narrow}",
        _table(
            ("figure", "value", "95 % interval"),
            [(figure_label(name), *format_interval(interval)) for name, interval in figures.items()],
        ),
        f"Compared with {gate.against}:"
        if gate.auc_difference
        else f"Not compared with another model: {gate.against}.",
        "\n".join(f"- {'passed' if check.passed else '**refused**'}: {check.message}" for check in gate.checks),
        "## Limits",
        "\n".join(
            (
                "- All pictures are from one source; the model was not tested on other machines, hospitals, ages or diseases.",
                "- The labels are those of the data set and may be wrong; the model separates two classes and detects no other "
                "finding.",
                f"- The share of {positive} among the test pictures is that of the data set, and precision depends on it.",
            )
        ),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def figure_label(name: str) -> str:
    """Return the label of a figure for tables, as `AUC` for `auc`."""
    return {"auc": "AUC", "f1": "F1", "brier": "Brier score"}.get(name, name.replace("_", " "))


def format_interval(interval: Interval) -> tuple[str, str]:
    """Return the texts of the value and of the interval's ends, with four decimals."""
    value = "not defined" if math.isnan(interval.value) else f"{interval.value:.4f}"
    return value, "-" if math.isnan(interval.low) else f"{interval.low:.4f} to {interval.high:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
