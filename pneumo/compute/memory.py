"""Memory: how much this process and its workers may have, and whether the kernel ended a process for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from pneumo.spec.cores import CGROUPS, PROC, control_groups, read_text


def total_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return the memory in bytes of this machine, or of the container if its limit is lower."""
    limits = [limit for limit, _ in _cgroup_limits(proc, cgroups)]
    return min([int(psutil.virtual_memory().total), *limits])


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return the memory in bytes that new processes can take now without swapping, within the container's limit."""
    free = [max(0, limit - used) for limit, used in _cgroup_limits(proc, cgroups)]
    return min([int(psutil.virtual_memory().available), *free])


def count_oom_kills(proc: Path = PROC) -> int | None:
    """Return how many processes the kernel has ended because memory ran out; None if it does not count them."""
    return _read_fields(proc / "vmstat").get("oom_kill")


def _cgroup_limits(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the used memory, in bytes, of each control group that this process is in.

    The memory of files that can be dropped does not count as used.
    """
    for version, folder in control_groups("memory", proc, cgroups):
        if version == 2:
            limit_name, used_name, cache_name = "memory.max", "memory.current", "inactive_file"
        else:
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache_name = "total_inactive_file"
        limit, used = read_text(folder / limit_name).strip(), read_text(folder / used_name).strip()
        if limit.isdigit() and used.isdigit():
            yield int(limit), int(used) - _read_fields(folder / "memory.stat").get(cache_name, 0)


def _read_fields(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a kernel's file; nothing if it cannot be read."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
