"""The free memory of a machine and of its control groups, from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from pneumo.compute.memory import available_memory, count_oom_kills, total_memory

GIB = 2**30

V2 = {"memory.max": "7516192768\n", "memory.current": f"{3 * GIB}\n", "memory.stat": f"anon 5\ninactive_file {GIB}\n"}
V1 = {
    "memory.limit_in_bytes": "7516192768\n",
    "memory.usage_in_bytes": f"{3 * GIB}\n",
    "memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
}
NO_LIMIT_V2 = {"memory.max": "max\n", "memory.current": "5\n"}
NO_LIMIT_V1 = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "5\n"}


@pytest.mark.parametrize(
    ("cgroup", "groups", "limited"),
    [
        ("0::/\n", {"": V2}, True),  # in a container
        ("0::/user.slice/app.scope\n", {"user.slice/app.scope": V2, "user.slice": NO_LIMIT_V2}, True),
        ("0::/user.slice/app.scope\n", {"user.slice/app.scope": NO_LIMIT_V2, "user.slice": V2}, True),  # one above
        ("0::/docker/1a2b\n", {"": V2}, True),  # the host's path, which is not there
        ("0::/\n", {"": NO_LIMIT_V2}, False),
        ("4:memory:/docker/1a2b\n1:cpu:/\n0::/\n", {"memory": V1}, True),
        ("4:cpu,memory:/a/b\n", {"memory/a/b": NO_LIMIT_V1, "memory/a": V1, "memory": NO_LIMIT_V1}, True),
        ("4:memory:/a\n", {"memory": NO_LIMIT_V1}, False),
        ("4:cpuset:/a\n", {"a": V2}, False),
        ("", {}, False),
        ("no control group", {"": V2}, False),
    ],
)
def test_the_lowest_limit_holds(
    cgroup: str,
    groups: dict[str, dict[str, str]],
    limited: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    for group, files in groups.items():
        (cgroups / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (cgroups / group / name).write_text(content)
    memory = psutil.virtual_memory()._replace(total=64 * GIB, available=60 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    # Of the 3 GiB that are used, 1 GiB is of files that can be dropped.
    assert total_memory(proc, cgroups) == (7 * GIB if limited else 64 * GIB)
    assert available_memory(proc, cgroups) == (5 * GIB if limited else 60 * GIB)


def test_a_machine_without_control_groups_has_its_memory(tmp_path: Path) -> None:
    assert total_memory(tmp_path, tmp_path) == psutil.virtual_memory().total
    assert 0 < available_memory(tmp_path, tmp_path) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("vmstat", "kills"),
    [("nr_free_pages 5\noom_kill 3\n", 3), ("oom_kill 0\n", 0), ("nr_free_pages 5\n", None), (None, None)],
)
def test_kills_for_memory_are_those_that_the_kernel_counts(
    vmstat: str | None, kills: int | None, tmp_path: Path
) -> None:
    if vmstat is not None:
        (tmp_path / "vmstat").write_text(vmstat)
    assert count_oom_kills(tmp_path) == kills
