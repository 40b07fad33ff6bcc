"""Workers on a Ray cluster (docs.ray.io, "Ray Core"): actors, each with a state of its own.

Nothing is sent but the work itself: every node has this libra-edge, of the same version, and sees
policies, datasets and folders under the same paths.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from libra_edge.errors import IncompatibleError, InputError, LibraError
from libra_edge.version import __version__
from libra_edge.workers.places import Lost, OpenState, Place, Work
from libra_edge.workers.where import Workers

LOCAL = "local"
CONNECT_S, START_S = 10.0, 120.0
# Of a command whose node is lost.
MOST_RETRIES = 2
# Ray reports its use to its makers unless it is told not to.
_SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


class Worker:
    """What an actor runs.

    Args:
        open_state: makes what it keeps.
        version: of the libra-edge that asks.
    """

    def __init__(self, open_state: OpenState, version: str) -> None:
        self._open_state = open_state
        self._wanted = version
        self._stack = ExitStack()
        self._state: Any = None

    def is_there(self) -> None:
        """Answers once there is a place for it."""

    def run(self, work: Work, item: Any) -> Any:
        """One unit."""
        if self._wanted != __version__:
            raise IncompatibleError(
                "ray-version",
                f"A node of the cluster has libra-edge {__version__}, this machine {self._wanted}.",
                "Install the same version on every node.",
            )
        if self._state is None:
            self._state = self._stack.enter_context(self._open_state())
        return work(self._state, item)


class RayActors(Place):
    """Actors of a cluster, as many as were asked for, or as it has processors.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or it has fewer
            processors than were asked for.
    """

    def __init__(self, open_state: OpenState, workers: Workers) -> None:
        self._ray = connect(workers)
        cluster = int(self._ray.cluster_resources().get("CPU", 1))
        if (workers.jobs or 1) > cluster:
            raise InputError(
                "ray-too-small",
                f"--jobs {workers.jobs} is more than the {cluster} processors of the Ray cluster.",
                "Ask for fewer, or leave --jobs out: then it uses them all.",
            )
        self.count = max(1, workers.jobs or cluster)
        self._open_state = open_state
        self._idle: deque[Any] = deque()
        # What answers once the actor runs somewhere, and the actor.
        self._starting: dict[Any, Any] = {}
        self._waiting: deque[tuple[int, Work, Any]] = deque()
        self._running: dict[Any, tuple[int, Any]] = {}
        for _ in range(self.count):
            self._hire()

    def _hire(self) -> None:
        actor = self._ray.remote(num_cpus=1)(Worker).remote(self._open_state, __version__)
        self._starting[actor.is_there.remote()] = actor

    def submit(self, number: int, work: Work, item: Any) -> None:
        """See `Place.submit`."""
        self._waiting.append((number, work, item))
        self._start()

    def _start(self) -> None:
        while self._waiting and self._idle:
            number, work, item = self._waiting.popleft()
            actor = self._idle.popleft()
            self._running[actor.run.remote(work, item)] = (number, actor)

    def wait(self) -> tuple[int, Any]:
        """See `Place.wait`.

        Raises:
            LibraError: no node takes a worker any more.
        """
        while True:
            asked = [*self._running, *self._starting]
            # A unit may take as long as it needs; a worker that is to start may not.
            limit_s = None if self._running else START_S
            done, _ = self._ray.wait(asked, num_returns=1, timeout=limit_s)
            if not done:
                raise LibraError(
                    "ray-without-workers",
                    f"No node of the Ray cluster took a worker within {START_S:.0f} s.",
                    "See `ray status`; with --results the run goes on where it was.",
                )
            if done[0] in self._starting:
                self._started(done[0])
            else:
                return self._ended(done[0])

    def _started(self, answer: Any) -> None:
        actor = self._starting.pop(answer)
        try:
            self._ray.get(answer)
        except self._ray.exceptions.RayError:
            self._hire()
            return
        self._idle.append(actor)
        self._start()

    def _ended(self, answer: Any) -> tuple[int, Any]:
        number, actor = self._running.pop(answer)
        try:
            result = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            self._hire()
            return number, Lost(" ".join(str(error).split())[:200])
        self._idle.append(actor)
        self._start()
        return number, result

    def close(self) -> None:
        """See `Place.close`."""
        for _, actor in self._running.values():
            self._ray.kill(actor)
        for actor in [*self._idle, *self._starting.values()]:
            self._ray.kill(actor)
        self._running.clear()
        self._starting.clear()
        self._idle.clear()


def connect(workers: Workers) -> Any:
    """The module `ray`, connected; what was connected before stays.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    if find_spec("ray") is None:
        raise InputError(
            "ray-missing",
            "--ray needs the package ray, which is not installed.",
            "Install libra-edge[ray], here and on every node of the cluster.",
        )
    os.environ.update(_SILENT)
    ray: Any = import_module("ray")
    if ray.is_initialized():
        return ray
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if workers.ray == LOCAL:
        ray.init("local", num_cpus=workers.jobs, include_dashboard=False, **quiet)
        return ray
    try:
        _require_listener(str(workers.ray))
        ray.init(address=workers.ray, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "ray-unreachable",
            f"There is no Ray cluster at {workers.ray}: {' '.join(str(error).split())[:200]}",
            "Start one (ray start --head), or write --ray local.",
        ) from None
    return ray


def _require_listener(address: str) -> None:
    """Whether somebody listens there: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise ValueError("an address is HOST:PORT, or auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


class RayCommand:
    """A command on a node of the cluster, as `libra_edge.compiler.many.Job`.

    Args:
        command: the words; the node has the same interpreter and folders under the same paths.
        workers: the cluster.
        memory_bytes: that the node has to have free for it.
    """

    def __init__(self, command: Sequence[str], workers: Workers, memory_bytes: int) -> None:
        self._ray = connect(workers)
        run = self._ray.remote(num_cpus=1, memory=memory_bytes, max_retries=MOST_RETRIES)
        self._done = run(run_command).remote(list(command))

    def ended(self) -> bool:
        """Whether it has."""
        done, _ = self._ray.wait([self._done], timeout=0)
        return bool(done)

    def output(self) -> tuple[int, bytes]:
        """Its status, and what it said."""
        try:
            status, said = self._ray.get(self._done)
        except self._ray.exceptions.RayError as error:
            return 1, " ".join(str(error).split()).encode()
        return status, said

    def kill(self) -> None:
        """End it."""
        self._ray.cancel(self._done, force=True)


def run_command(command: Sequence[str]) -> tuple[int, bytes]:
    """Status and standard output of a command."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.returncode, done.stdout
