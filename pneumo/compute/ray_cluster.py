"""Connecting to a Ray cluster, or starting one on this machine, and what its nodes have room for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from pneumo.compute.place import PlaceError
from pneumo.spec.cores import usable_cores
from pneumo.spec.errors import RequestError

LONGEST_FOLDER = 40
"""Largest number of characters of a folder for temporary files in which Ray can make its sockets. Linux allows 107 in all."""

STARTS = 4
"""Number of attempts to start a local cluster. Ray gives up after 30 seconds, in which a busy machine may not start it."""

LONGEST_ERROR = 300
"""Largest number of characters that are shown of one of Ray's errors."""


@dataclass(frozen=True)
class Needs:
    """What one worker takes of its node.

    Attributes:
        cpus: Cores.
        gpus: GPUs, or a fraction of one.
        memory: Bytes of memory.
        resources: Amounts of custom resources by name.
    """

    cpus: float
    gpus: float = 0.0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    def amounts(self) -> dict[str, float]:
        """Return everything by Ray's names."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.resources}
        return {name: amount for name, amount in amounts.items() if amount}

    def fit(self, node: Mapping[str, float]) -> int:
        """Return how many workers fit into the resources of a node."""
        return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in self.amounts().items())

    def describe(self) -> str:
        """Return the needs for a message."""
        custom = [f"{amount:g} {name}" for name, amount in self.resources.items()]
        gpus = [f"{self.gpus:g} GPU{'' if self.gpus <= 1 else 's'}"] if self.gpus else []
        return ", ".join([f"{self.cpus:g} core{'' if self.cpus == 1 else 's'}", *gpus, *custom])


class RayCluster:
    """A connection to a Ray cluster.

    Args:
        address: `local` starts a cluster of this process on this machine and never joins another one; `auto` joins the one
            that runs on this machine; `HOST:PORT` joins that one, from one of its nodes; `ray://HOST:PORT` connects to it.
        outage: Seconds for which its head may be away.
        cores: Number of cores of a local cluster; None for those that this process may use.

    Raises:
        PlaceError: It cannot be reached, or Ray cannot be started.
    """

    def __init__(self, address: str, outage: float, cores: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")  # lines of the autoscaler, between those of the search
        # Ray ends this process if the head of the cluster is away for longer than that, a minute by default.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(int(outage) + 600))
        self.address = address
        self._folder: str | None = None
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
        if address == "local":
            self._folder = tempfile.mkdtemp(prefix="pneumo-ray-", dir=_short_folder())
            options |= {"num_cpus": cores or usable_cores(), "include_dashboard": False, "_temp_dir": self._folder}
        import ray

        self.ray = ray
        try:
            with _kept_signals():
                self._connect(options)
            _silence()
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception):
                raise
            raise PlaceError(f"--ray {address}: {_say(address)}: {one_line(error)}") from error

    def _connect(self, options: dict[str, Any]) -> None:
        attempts = STARTS if self.address == "local" else 1
        for attempt in range(attempts):
            try:
                self.ray.init(**options)
                return
            except Exception as error:
                if "timed out during startup" not in str(error) or attempt == attempts - 1:
                    raise
                self.ray.shutdown()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of its workers. What those of a local cluster leave behind is removed with it."""
        return {"TMPDIR": self._folder} if self._folder else {}

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive, as `ray.nodes()` describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]

    def resources(self) -> list[dict[str, float]]:
        """Return the resources of each node that is alive, by Ray's names."""
        return [node["Resources"] for node in self.nodes()]

    def close(self) -> None:
        """Disconnect. A local cluster ends with all of its processes."""
        with contextlib.suppress(Exception):
            self.ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def check_ray() -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        RequestError: It is not.
    """
    if find_spec("ray") is None:
        raise RequestError("--ray: Ray is not installed; pip install 'pneumo[ray]' gets it")


def one_line(error: BaseException) -> str:
    """Return an error of Ray in one line. Its texts have tables, stack traces and advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]} ..."


def _say(address: str) -> str:
    if address == "local":
        return "Ray could not be started on this machine"
    if address == "auto":
        return "no Ray cluster runs on this machine that this process could join; --ray local starts one"
    return "this Ray cluster could not be joined"


def _short_folder() -> str | None:
    """Return a folder for temporary files whose path is short enough for sockets; None for the usual one."""
    return None if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"  # noqa: S108  (mkdtemp makes it private)


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep the handlers of this process, which `ray.init` replaces. A process that is started meanwhile has no SIGHUP.

    Otherwise a closed terminal would end the workers before the search can say what became of their trials.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _silence() -> None:
    """Let Ray not print on this terminal that a worker died. The search says so itself; Ray has no setting for it."""
    with contextlib.suppress(Exception):
        from ray._private import worker

        worker.print_to_stdstream = lambda *arguments, **options: None
