"""The cores that this process may use, as the system says: its affinity and the limits of its control groups.

Every folder divides its threads by this number. The number of cores of the machine is another: a batch system, `taskset` or a
container gives a process fewer, and threads beyond them fight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

THREADS_VARIABLE = "TF_NUM_INTRAOP_THREADS"
"""The environment variable from which TensorFlow takes the number of threads of one operation when it starts."""


def usable_cores(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return how many cores this process may use, at least 1: those of its affinity, within the container's limit.

    A limit of 2.5 cores counts as 2, so that no thread waits for another one's share.
    """
    return max(1, min([scheduled_cores(), *(int(limit) for limit in _cpu_limits(proc, cgroups))]))


def scheduled_cores() -> int:
    """Return how many cores this process may be scheduled on. TensorFlow starts as many threads unless it is told otherwise."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def control_groups(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[tuple[int, Path]]:
    """Yield the version (1 or 2) and the folder of each control group that this process is in, and of those above it.

    A limit of a group above holds too. In a container, the kernel may name a group by its path on the host, while the
    container's own group is mounted as the root. So some of the folders may not be there.

    Args:
        controller: What the group limits, as `memory` or `cpu`. Version 2 has one tree for all controllers.
        proc: Where the kernel says in which groups this process is.
        cgroups: Where the groups are mounted.
    """
    for line in read_text(proc / "self" / "cgroup").splitlines():
        hierarchy, controllers, group = (*line.split(":", 2), "", "")[:3]
        if hierarchy == "0" and not controllers:
            version, root = 2, cgroups
        elif controller in controllers.split(","):
            version, root = 1, cgroups / controller
        else:
            continue
        folder = root / group.lstrip("/")
        while folder.is_relative_to(root):
            yield version, folder
            folder = folder.parent


def read_text(path: Path) -> str:
    """Return the text of a kernel's file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _cpu_limits(proc: Path, cgroups: Path) -> Iterator[float]:
    """Yield the limit of each control group in cores, which need not be a whole number."""
    for version, folder in control_groups("cpu", proc, cgroups):
        if version == 2:
            quota, period = (*read_text(folder / "cpu.max").split(), "", "")[:2]
        else:
            quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):  # no limit is `max` or -1
            yield int(quota) / int(period)
