"""Ray clusters that the tests of a module share, and one of two nodes on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pneumo.compute.ray_cluster import RayCluster


@dataclass
class Kept:
    """A cluster that a place does not end when it is closed.

    Attributes:
        cluster: The cluster.
        remove_node: Kills a node that is not the first one; None if there is one only.
        add_node: Adds a node.
    """

    cluster: RayCluster
    remove_node: Callable[[], None] | None = None
    add_node: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster, name)

    def close(self) -> None:
        """Keep the cluster."""


@dataclass(frozen=True)
class Nodes:
    """A cluster of several nodes on this machine, which nobody has joined yet.

    Attributes:
        address: `HOST:PORT`.
        remove_node: Kills a node that is not the first one.
        add_node: Adds a node.
    """

    address: str
    remove_node: Callable[[], None]
    add_node: Callable[[], None]


@contextmanager
def start_nodes() -> Iterator[Nodes]:
    """Start a cluster of two nodes of one core each, whose files and settings are its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)  # Ray writes there, in a folder `ray`, which cluster is the current one
        Path(folder, "ray").mkdir()
        from ray.cluster_utils import Cluster

        options: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={**options, "temp_dir": f"{folder}/ray"})
        try:
            nodes = [cluster.add_node(**options)]
            yield Nodes(
                cluster.address,
                remove_node=lambda: cluster.remove_node(nodes.pop(), allow_graceful=False),
                add_node=lambda: nodes.append(cluster.add_node(**options)),
            )
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def two_nodes() -> Iterator[Kept]:
    """Start a cluster of two nodes, and join it."""
    with start_nodes() as nodes:
        kept = Kept(RayCluster(nodes.address, 60.0), nodes.remove_node, nodes.add_node)
        yield kept
        kept.cluster.close()
