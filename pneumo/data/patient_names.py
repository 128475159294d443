"""The patients that names of pictures tell, by the conventions of the public archives.

- Kermany's archive on Kaggle, `person12_virus_30.jpeg`, `IM-0115-0001.jpeg`, `NORMAL2-IM-0381-0001.jpeg`: `person12`, ...
- Kermany's archive on Mendeley, `BACTERIA-1008087-0001.jpeg` (disease, patient, picture): `1008087`; doi:10.17632/rscbjbr9sj
- NIH ChestX-ray14, `00000013_000.png`: `00000013`; X. Wang et al. 2017, arXiv:1705.02315, `Patient ID` of Data_Entry_2017.csv
- CheXpert, `patient00001/study1/view1_frontal.jpg`: `patient00001`; J. Irvin et al. 2019, arXiv:1901.07031
- MIMIC-CXR, `p10000032/s50414267/....jpg`: `p10000032`; A. Johnson et al. 2019, doi:10.1038/s41597-019-0322-0
- BRAX, `id_.../Study_.../Series_.../....png`: `id_...`; E. Reis et al. 2022, doi:10.1038/s41597-022-01608-8
- BIDS, so BIMCV-COVID19, `sub-S03044/ses-E07985/...` and `sub-S03044_ses-E07985_....png`: `sub-S03044`; arXiv:2006.01174
- Indiana (Open-i), `CXR1_1_IM-0001-3001.png`: `CXR1`; D. Demner-Fushman et al. 2016, doi:10.1093/jamia/ocv080. On Kaggle
  `1_IM-0001-4001.dcm.png`: `1`
- Shenzhen and Montgomery, one picture a patient, `CHNCXR_0001_0.png`: `CHNCXR_0001`; S. Jaeger et al. 2014,
  doi:10.3978/j.issn.2223-4292.2014.11.20
- JSRT, one picture a patient, `JPCLN001.png`: `JPCLN001`; J. Shiraishi et al. 2000, doi:10.2214/ajr.174.1.1740071

The names of PadChest, VinDr-CXR, COVID-QU-Ex, COVIDx and PneumoniaMNIST tell no patient, nor do those of the RSNA challenge:
each picture has an identifier of its own, and a patient is told by a table or not at all.

These names are distinctive, so each picture is recognised by itself and a mixed set is understood. Two more conventions are
not: a folder for each patient (`patient_12/`, `P0012/`) and file names with a number (`patient12_1.png`). They count only if
they hold for a whole class, and if its patients are plausible.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

FEWEST_OF_A_CLASS = 0.9
"""Smallest share of a class's pictures, without those of public archives, that must follow a general convention."""

MOST_OF_A_PATIENT = 20
"""Largest mean number of pictures of a patient by a general convention. A larger one speaks for batches: ChestX-ray14 has 3.6,
MIMIC-CXR 5.8."""


class Patient(NamedTuple):
    """A picture's patient, and how it is known: `Picture.patient` and `Picture.known_by`."""

    id: str
    known_by: str


@dataclass(frozen=True)
class Convention:
    """How an archive's names tell the patient.

    Attributes:
        known_by: How the patient is known, for people.
        pattern: Matches the path of a picture from its class folder on. The group `patient` is the patient.
        restarts: Whether the archive itself numbers the patients of the test folder from the beginning again.
    """

    known_by: str
    pattern: re.Pattern[str]
    restarts: bool = False


def _convention(known_by: str, pattern: str, restarts: bool = False) -> Convention:
    # <start>: the name may begin with something else, as in nih_00000013_000.png. <file>: the match is in the file's name.
    pattern = pattern.replace("<start>", r"(?<![0-9A-Za-z])").replace("<file>", r"[^/]*$")
    return Convention(known_by, re.compile(pattern, re.IGNORECASE), restarts)


ARCHIVES = (
    _convention(
        "names as in Kermany's archive",
        r"(?:^|/)(?:(?P<person>person\d+)_|(?P<normal>(?:NORMAL2-)?IM-\d+)-)<file>",
        restarts=True,
    ),
    _convention("names as in pneumo's phantoms", r"(?:^|/)(?P<patient>phantom\d+)_<file>"),
    _convention(
        "names as in Kermany's archive on Mendeley", r"<start>(?:NORMAL|BACTERIA|VIRUS)-(?P<patient>\d{4,})-\d+<file>"
    ),
    # The numbers end at 30805. A date, as in 20200315_001.png, is no patient.
    _convention("names as in NIH ChestX-ray14", r"<start>(?P<patient>000\d{5})_\d{3}(?!\d)<file>"),
    _convention("names as in CheXpert", r"<start>(?P<patient>patient\d{5})[/_-]study\d+[/_-]view\d+<file>"),
    _convention("names as in MIMIC-CXR", r"<start>(?P<patient>p1\d{7})[/_-]s?5\d{7}(?!\d)"),
    _convention("names as in BRAX", r"(?:^|/)(?P<patient>id_[0-9a-f-]{8,})/Study_"),
    _convention("names as in BIDS", r"(?:^|/)(?P<patient>sub-[0-9A-Za-z]+)[_/]"),
    _convention("names as in the Indiana collection", r"(?:^|/)(?P<patient>(?:CXR)?\d+)(?:_\d+)?_IM-\d+-\d+<file>"),
    _convention(
        "names as in the Shenzhen and Montgomery sets", r"<start>(?P<patient>(?:CHN|MCU)CXR_\d{4})_[01](?!\d)<file>"
    ),
    _convention("names as in JSRT", r"<start>(?P<patient>JPC[LN]N\d{3})(?!\d)<file>"),
)
"""The conventions of public archives. Each picture goes by the first that matches."""

GENERAL = (
    _convention(
        "a folder for each patient",
        r"(?:^|/)(?P<patient>(?:patient|pat|person|subject|subj|case)[-_ ]?[A-Za-z]{0,2}\d+|(?:pt|p)[-_ ]?\d{3,})/",
    ),
    _convention(
        "the numbers of patients in file names",
        r"(?:^|/)(?P<patient>(?:patient|pat|subject|subj)[-_ ]?\d+)[-_ .][^/]+\.<file>",
    ),
)
"""Conventions that count only if they hold for a whole class."""

RESTARTING = frozenset(convention.known_by for convention in ARCHIVES if convention.restarts)
"""The values of `known_by` whose numbers start again in the test folder: there the same number is another patient."""


def patients_by_name(names: Iterable[str], classes: Sequence[str]) -> dict[str, Patient]:
    """Return the patients that the names of a set's pictures tell, by name, without the pictures whose name tells none.

    Args:
        names: POSIX paths with a class folder in them, as `train/NORMAL/IM-0115-0001.jpeg`.
        classes: The names of the class folders, in any case.
    """
    folders = {name.casefold() for name in classes}
    patients: dict[str, Patient] = {}
    others: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        parts = PurePosixPath(name).parts
        class_at = next((i for i, part in enumerate(parts[:-1]) if part.casefold() in folders), -1)
        label, path = parts[max(class_at, 0)].casefold(), "/".join(parts[class_at + 1 :])
        if found := next((patient for convention in ARCHIVES if (patient := _match(convention, path))), None):
            patients[name] = found
        else:
            others[label][name] = path
    for paths in others.values():
        for convention in GENERAL:
            matches = {name: patient for name, path in paths.items() if (patient := _match(convention, path))}
            holds = len(matches) >= FEWEST_OF_A_CLASS * len(paths)
            if holds and len(matches) <= MOST_OF_A_PATIENT * len(set(matches.values())):
                patients |= matches
                break
    return patients


def _match(convention: Convention, path: str) -> Patient | None:
    match = convention.pattern.search(path)
    return Patient(next(filter(None, match.groups())), convention.known_by) if match else None
