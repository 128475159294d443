"""Memory: how much this process and its workers may have, and whether the kernel ended a process for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


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

    A limit of a group above holds too. In a container, the kernel may name a group by its path on the host, while the
    container's own group is mounted as the root. So paths that are not there are passed over. The memory of files that can
    be dropped does not count as used.
    """
    for line in _read_text(proc / "self" / "cgroup").splitlines():
        hierarchy, controllers, group = (*line.split(":", 2), "", "")[:3]
        if hierarchy == "0" and not controllers:
            root, limit_name, used_name, cache_name = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit_name, used_name = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache_name = "total_inactive_file"
        else:
            continue
        path = root / group.lstrip("/")
        while path.is_relative_to(root):
            limit, used = _read_text(path / limit_name).strip(), _read_text(path / used_name).strip()
            if limit.isdigit() and used.isdigit():
                yield int(limit), int(used) - _read_fields(path / "memory.stat").get(cache_name, 0)
            path = path.parent


def _read_fields(path: Path) -> dict[str, int]:
    """Return the lines `name number` of a kernel's file; nothing if it cannot be read."""
    pairs = (line.split() for line in _read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
