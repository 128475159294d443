"""Tests of pneumo.data.causes: the cause that a picture's name tells."""

from __future__ import annotations

import pytest

from pneumo.data.causes import cause_by_name


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("train/PNEUMONIA/person12_virus_7.jpeg", "virus"),
        ("chest_xray/train/PNEUMONIA/person1000_bacteria_2931.jpeg", "bacteria"),
        ("PNEUMONIA/BACTERIA-1008087-0001.jpeg", "bacteria"),
        ("PNEUMONIA/VIRUS-1006924-0001.jpeg", "virus"),
        ("train/NORMAL/IM-0115-0001.jpeg", None),
        ("train/NORMAL/NORMAL2-IM-0381-0001.jpeg", None),
        ("train/PNEUMONIA/phantom12_1.png", None),
        ("virus/PNEUMONIA/1.png", None),
        ("PNEUMONIA/antivirus-12345-1.png", None),
        ("PNEUMONIA/person12_viruses.jpeg", None),
        ("", None),
    ],
)
def test_only_the_archives_own_names_tell_a_cause(name: str, cause: str | None) -> None:
    assert cause_by_name(name) == cause
