"""The cores that a process may use, from files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pneumo.spec.cores import usable_cores


@pytest.mark.parametrize(
    ("cgroup", "files", "affinity", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8, 8),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 8, 1),  # docker run --cpus 1
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 8, 2),  # two and a half
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 8, 1),  # a half
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 1, 1),  # taskset -c 0
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 8, 3),  # a limit above
        ("0::/docker/1a2b\n", {"cpu.max": "200000 100000\n"}, 8, 2),  # the host's path, which is not there
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 8, 2),
        ("4:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8, 8),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, 8, 8),
        ("", {}, 3, 3),  # no control groups
    ],
)
def test_the_cores_are_those_of_the_affinity_within_the_limits_of_the_control_groups(
    cgroup: str,
    files: dict[str, str],
    affinity: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, content in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    assert usable_cores(proc, cgroups) == expected
