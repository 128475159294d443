"""The cause of a pneumonia that the name of a picture tells, by the conventions of Kermany's archives.

- On Kaggle, `person12_virus_7.jpeg`: virus
- On Mendeley, `BACTERIA-1008087-0001.jpeg`: bacteria; doi:10.17632/rscbjbr9sj
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

Cause = Literal["virus", "bacteria"]

_NAMES = re.compile(r"person\d+_(virus|bacteria)_|(virus|bacteria)-\d{4,}-\d+", re.IGNORECASE)


def cause_by_name(name: str) -> Cause | None:
    """Return the cause that the name of a picture tells; None if it tells none.

    Args:
        name: A POSIX path, as `train/PNEUMONIA/person12_virus_7.jpeg`.
    """
    match = _NAMES.match(PurePosixPath(name).name)
    if match is None:
        return None
    return "virus" if "virus" in match[0].casefold() else "bacteria"
