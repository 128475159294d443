"""Trials as actors of a Ray cluster.

Each worker is an actor, see `ray_worker`. The driver keeps one call of `receive` under way to each of them and gets what its
trial has sent, in order. An actor that is lost is replaced; Ray restarts none, because the driver has to know of it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pneumo import __version__
from pneumo.compute.local import MOST_DEATHS, OUT_OF_MEMORY, TRIALS_PER_WORKER
from pneumo.compute.place import Died, Ended, Event, PlaceError, PlaceOutageError, Task
from pneumo.compute.ray_cluster import Needs, RayCluster, one_line
from pneumo.compute.ray_worker import CRASHED, About, RayWorker, Sent, read_output
from pneumo.compute.worker import Started, TrialFunction
from pneumo.spec.errors import LESS_MEMORY

POOL_SECONDS = 5.0
"""Seconds between two looks at how many workers the cluster has room for."""

OUTPUT_SECONDS = 20.0
"""Longest time to wait for the output of a worker that died, in seconds. Its node may be gone with it."""

THREADS = 4
"""Threads of an actor that answer the driver, besides the one that trains."""

CRASHES = (CRASHED, "Fatal Python error", "*** SIGSEGV", "*** SIGABRT", "*** SIGFPE", "*** SIGILL", "*** SIGBUS")
"""What a process writes that crashes by itself. One that is killed from outside writes nothing."""


@dataclass(frozen=True)
class Stored:
    """A value in Ray's object store. Arrays in it are mapped by all workers of a node, and copied to each node once."""

    reference: Any

    def __call__(self) -> Any:
        """Return the value. Arrays in it are read-only."""
        import ray

        return ray.get(self.reference)


@dataclass(eq=False)
class _Actor:
    """A worker.

    Attributes:
        handle: Ray's handle.
        call: The call under way: of `about` until the actor has started, then of `receive`.
        about: What it said of itself; None until it has started.
        submitted: Number of tasks that were submitted to it.
        task: The task that is under way; None if it is idle.
        started: Monotonic time in seconds when that task started; None before.
    """

    handle: Any
    call: Any
    about: About | None = None
    submitted: int = 0
    task: Task | None = None
    started: float | None = None


class RayPlace:
    """A `Place` of actors of a Ray cluster. Besides the events of a place it returns what trials `send`.

    There are as many workers as there are tasks, at most `slots`, and at most as many as the cluster has room for. If it grows,
    there are more; if it shrinks, there are fewer. Only workers that have started count as free.

    Args:
        run: Function that runs a trial. It must be importable on every node.
        warm_up: Function that imports what trials need. It must be importable on every node.
        cluster: The cluster. It is closed with the place.
        needs: What each worker takes of its node.
        slots: Largest number of trials at the same time; None for as many as the cluster has room for. With a number, the
            cluster is asked for all of them, so that one that can grow does.
        trial_timeout: Seconds after which a trial is killed; None for no limit.
        outage: Seconds after which the place gives up if no worker is there.
    """

    def __init__(
        self,
        run: TrialFunction,
        warm_up: Callable[[], None],
        cluster: RayCluster,
        needs: Needs,
        slots: int | None = None,
        trial_timeout: float | None = None,
        outage: float = 600.0,
    ) -> None:
        self._arguments = (run, warm_up, threads(needs) | cluster.environment)
        self._cluster, self._ray, self._needs, self._slots = cluster, cluster.ray, needs, slots
        self._trial_timeout, self._outage = trial_timeout, outage
        self._class = self._ray.remote(RayWorker)
        self._actors: list[_Actor] = []
        self._events: deque[Event | Sent] = deque()
        self._waiting: deque[Task] = deque()
        self._deaths, self._wanted, self._closed = 0, 1, False
        self._last_watched = self._last_alive = time.monotonic()
        self._room, self._looked = 0, -math.inf
        self._fill_pool()

    @property
    def free(self) -> int:
        idle = sum(actor.about is not None and actor.task is None for actor in self._actors)
        return max(0, idle - len(self._waiting))

    @property
    def room(self) -> int:
        """Number of workers that the cluster has room for now, at most `slots`."""
        room = sum(map(self._needs.fit, self._cluster.resources()))
        return room if self._slots is None else min(room, self._slots)

    def put(self, value: Any) -> Stored:
        """Store a value in Ray's object store, as long as this place is open."""
        return Stored(self._ray.put(value))

    def start(self, workers: int) -> None:
        """Start workers until there are `workers`, or as many as the place may have."""
        self._wanted = max(1, workers)
        self._looked = -math.inf
        self._fill_pool()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self._hand_tasks()

    def next_event(self, timeout: float) -> Event | Sent | None:
        # Between two calls the driver may wait for a server. That time counts neither for trial_timeout nor for the outage.
        unwatched = time.monotonic() - self._last_watched
        self._last_alive += unwatched
        for actor in self._actors:
            actor.started = None if actor.started is None else actor.started + unwatched
        until = time.monotonic() + timeout
        try:
            while True:
                if self._events:
                    return self._events.popleft()
                self._fill_pool()
                self._poll(self._pause(until))
                self._end_overdue()
                self._hand_tasks()
                self._check_outage()
                if not self._events and time.monotonic() >= until:
                    return None
        finally:
            self._last_watched = time.monotonic()

    def answer(self, number: int, go_on: bool) -> None:
        for actor in self._actors:
            if actor.task and actor.task.number == number:
                actor.handle.answer.remote(number, go_on)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor.handle)
        self._actors.clear()
        self._cluster.close()

    def _fill_pool(self) -> None:
        """Start as many workers as are wanted and fit, and those in place of workers that are gone."""
        if time.monotonic() - self._looked >= POOL_SECONDS:
            self._looked = time.monotonic()
            with contextlib.suppress(Exception):  # the head of the cluster is away
                self._room = self.room
        most = self._room if self._slots is None else self._slots
        while len(self._actors) < min(self._wanted, max(1, most)):
            self._start_actor()

    def _start_actor(self) -> None:
        # A worker is placed where most is free, so that trials share a node only if they must.
        options = {
            "num_cpus": self._needs.cpus,
            "num_gpus": self._needs.gpus,
            "memory": self._needs.memory or None,
            "resources": dict(self._needs.resources),
            "max_concurrency": THREADS,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
        }
        handle = self._class.options(**options).remote(*self._arguments)
        self._actors.append(_Actor(handle, handle.about.remote()))

    def _hand_tasks(self) -> None:
        """Give tasks that wait to workers that are idle."""
        for actor in self._actors:
            if self._waiting and actor.about is not None and actor.task is None:
                task = self._waiting.popleft()
                actor.task, actor.started, actor.submitted = task, None, actor.submitted + 1
                actor.handle.submit.remote(task.number, task.payload)

    def _poll(self, seconds: float) -> None:
        """Wait for answers of workers, at most `seconds`, and handle all that are there."""
        calls = {actor.call: actor for actor in self._actors}
        if not calls:
            time.sleep(seconds)
            return
        ready, others = self._ray.wait(list(calls), num_returns=1, timeout=seconds)
        if ready and others:
            ready += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        for call in ready:
            actor = calls[call]
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._bury(actor, error)
                continue
            self._last_alive = time.monotonic()
            if isinstance(answer, About):
                self._check_version(answer)
                actor.about = answer
            else:
                self._receive(actor, answer)
            if actor in self._actors:
                actor.call = actor.handle.receive.remote()

    def _receive(self, actor: _Actor, messages: Iterable[Any]) -> None:
        """Handle what a worker has sent."""
        for message in messages:
            if isinstance(message, Exception):
                where = f" on {actor.about.host}" if actor.about else ""
                raise PlaceError(f"a worker could not start{where}: {message}") from message
            if isinstance(message, Started):
                actor.started, self._deaths = time.monotonic(), 0
                continue
            if isinstance(message, Ended):
                actor.task = actor.started = None
                if message.last or actor.submitted >= TRIALS_PER_WORKER:
                    self._kill(actor)
            self._events.append(message)

    def _bury(self, actor: _Actor, error: Exception, reason: str | None = None) -> None:
        """Remove a lost worker. Its trial ends with `Died`; a task that it had not started is handed to another one."""
        if (
            actor.about is None
            and isinstance(error, self._ray.exceptions.ActorDiedError)
            and "creation task" in str(error)
        ):
            raise PlaceError(f"a worker could not start: {one_line(_first_cause(error))}") from error
        self._kill(actor)
        is_node_alive, output = self._look_at(actor)
        if reason is None:
            reason, is_own = self._describe_death(actor, error, output, is_node_alive=is_node_alive)
        else:
            is_own = True
        if actor.task and actor.started is not None:
            self._events.append(Died(actor.task.number, reason, output, retry=not is_own))
            return
        if actor.task:
            self._waiting.appendleft(actor.task)
        self._deaths += is_node_alive
        if self._deaths >= MOST_DEATHS:
            last_line = output.strip().splitlines()[-1:] or ["it wrote nothing"]
            raise PlaceError(f"workers die before their first trial: {reason}; {last_line[0]}")

    def _kill(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle)
        self._actors.remove(actor)

    def _look_at(self, actor: _Actor) -> tuple[bool, str]:
        """Return whether the node of a lost worker is still there, and the end of the worker's output."""
        if actor.about is None:
            return True, ""
        try:
            if actor.about.node not in {node["NodeID"] for node in self._cluster.nodes()}:
                return False, ""
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            there = NodeAffinitySchedulingStrategy(actor.about.node, soft=False)
            read = self._ray.remote(read_output).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            return True, str(self._ray.get(read.remote(actor.about.folder), timeout=OUTPUT_SECONDS))
        except Exception:
            return False, ""  # the node went while it was asked

    def _describe_death(self, actor: _Actor, error: Exception, output: str, *, is_node_alive: bool) -> tuple[str, bool]:
        """Return why a worker is lost, in one line, and whether its trial is the cause."""
        where = f" on {actor.about.host}" if actor.about else ""
        if not is_node_alive:
            return f"the node{where} is gone", False
        if any(message in output for message in OUT_OF_MEMORY):
            return f"out of memory: the worker process{where} ended; {LESS_MEMORY}", True
        if isinstance(error, self._ray.exceptions.OutOfMemoryError) or "low on memory" in str(error):
            return f"the worker process{where} was ended by Ray, because the node ran low on memory", False
        if any(message in output for message in CRASHES):
            return f"the worker process{where} crashed", True
        return f"the worker process{where} was ended from outside, or cannot be reached", False

    def _pause(self, until: float) -> float:
        """Return for how many seconds to wait for workers, before something else has to be looked at."""
        next_look = time.monotonic() + min(POOL_SECONDS, self._outage)
        return max(0.0, min([until, next_look, *map(self._deadline, self._actors)]) - time.monotonic())

    def _deadline(self, actor: _Actor) -> float:
        """Return the monotonic time in seconds at which the worker's trial is killed; infinity if there is none."""
        if self._trial_timeout is None or actor.started is None:
            return math.inf
        return actor.started + self._trial_timeout

    def _end_overdue(self) -> None:
        for actor in tuple(self._actors):
            if self._deadline(actor) <= time.monotonic():
                reason = f"it took longer than trial_timeout, {self._trial_timeout:g} s"
                self._bury(actor, TimeoutError(reason), reason)

    def _check_version(self, about: About) -> None:
        if about.version != __version__:
            raise PlaceError(
                f"node {about.host} has pneumo {about.version}, and this search is {__version__}; install the same version "
                "on all nodes"
            )

    def _check_outage(self) -> None:
        """Raise `PlaceOutageError` if no worker has been there for too long."""
        if any(actor.about for actor in self._actors):
            self._last_alive = time.monotonic()
        elif time.monotonic() - self._last_alive > self._outage:
            raise PlaceOutageError(
                f"--ray {self._cluster.address}: no node of the Ray cluster has had room for a worker "
                f"({self._needs.describe()}) for {self._outage:g} s (search.outage)"
            )


def threads(needs: Needs) -> dict[str, str]:
    """Return the environment variables that limit a worker without a GPU to its cores."""
    if needs.gpus:
        return {}
    number = str(max(1, int(needs.cpus)))
    return {"TF_NUM_INTRAOP_THREADS": number, "OMP_NUM_THREADS": number}


def fit_needs(needs: Needs, cluster: RayCluster, gpus: float | None) -> Needs:
    """Return the needs of a worker of this cluster.

    Args:
        needs: The needs. A worker never asks for more memory than the largest node has: if it does not fit, its trial fails.
        cluster: The cluster.
        gpus: GPUs of a worker; None for one if a node has one.
    """
    nodes = cluster.resources()
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    largest = max((int(node.get("memory", 0)) for node in nodes), default=0)
    return replace(needs, gpus=gpus, memory=min(needs.memory, largest))


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
