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
class MemberFacts:
    """What a model card states about a member of an ensemble.

    Attributes:
        name: The trial, and the seed if it is a confirmation.
        run_id: Its run.
        weight: Its weight; the weights sum to 1.
        figures: Its own figures on validation pictures, by name.
    """

    name: str
    run_id: str
    weight: float
    figures: Mapping[str, float]


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
        parameters: Number of the network's parameters; of an ensemble that of all members.
        operating_point: Threshold and temperature, and how they were chosen.
        phantom: Whether the pictures are generated phantoms.
        warnings: What the reader must know before the figures.
        members: The members of an ensemble, the best first; empty for a single network.
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
    members: Sequence[MemberFacts] = ()


def model_card(
    facts: ModelFacts, figures: Mapping[str, Interval], gate: Gate, gain: Mapping[str, Interval] | None = None
) -> str:
    """Return the card of a model.

    Args:
        facts: The facts about the model.
        figures: Its figures on the test pictures.
        gate: The decision about its promotion.
        gain: Of an ensemble, the AUC and the accuracy on the test pictures minus those of its best member.

    Returns:
        The card as Markdown.
    """
    negative, positive = facts.classes
    pictures = "generated **phantoms**, which are not X-rays" if facts.phantom else "chest X-rays"
    known = facts.split_unit == interval_unit(0, 0)
    narrow = (
        "" if known else " If a patient has several pictures, the figures may be too good and the intervals too narrow."
    )
    networks = (
        f"An ensemble of {len(facts.members)} convolutional networks" if facts.members else "A convolutional network"
    )
    lines = [f"# {facts.title}", NOT_A_DEVICE]
    if facts.phantom:
        lines.append("It was trained and evaluated on **phantoms**; its figures say nothing about patients.")
    lines += facts.warnings
    lines += [
        "## Model",
        f"{networks} of {facts.parameters:,} parameters, trained on {pictures}. Its input is a picture of any "
        f"size (JPEG, PNG, DICOM or an array), its output the probability of {positive} as opposed to {negative}. "
        f"{facts.operating_point}",
        *_members(facts.members),
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
        describe_gain(gain) if gain else "",
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


def describe_gain(gain: Mapping[str, Interval]) -> str:
    """Return a sentence that says by how much an ensemble is better than its best member."""
    texts = []
    for name, interval in gain.items():
        if math.isnan(interval.value):
            texts.append(f"{figure_label(name)} not defined")
            continue
        ends = (
            "no interval" if math.isnan(interval.low) else f"95 % interval {interval.low:+.4f} to {interval.high:+.4f}"
        )
        texts.append(f"{figure_label(name)} {interval.value:+.4f} ({ends})")
    return f"Gain of the ensemble over its best member on the test pictures: {', '.join(texts)}."


def figure_label(name: str) -> str:
    """Return the label of a figure for tables, as `AUC` for `auc`."""
    return {"auc": "AUC", "f1": "F1", "brier": "Brier score"}.get(name, name.replace("_", " "))


def format_interval(interval: Interval) -> tuple[str, str]:
    """Return the texts of the value and of the interval's ends, with four decimals."""
    value = "not defined" if math.isnan(interval.value) else f"{interval.value:.4f}"
    return value, "-" if math.isnan(interval.low) else f"{interval.low:.4f} to {interval.high:.4f}"


def _members(members: Sequence[MemberFacts]) -> list[str]:
    """Return the section about the members of an ensemble, without text if there are none."""
    if not members:
        return []
    names = list(dict.fromkeys(name for member in members for name in member.figures))
    rows = [
        [member.name, member.run_id, f"{member.weight:.3f}"]
        + [f"{member.figures[name]:.4f}" if name in member.figures else "-" for name in names]
        for member in members
    ]
    return [
        "## Members",
        "The probability is the mean of the members' probabilities by their weights. The figures are the members' own, on "
        "validation pictures.",
        _table(("member", "run", "weight", *names), rows),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
