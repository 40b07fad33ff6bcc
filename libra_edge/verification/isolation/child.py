"""The parent's side of a process that runs a release's code, with limits of time and memory.

Whatever that code does to its process (a signal, an abort, an exit, no answer) is an error here.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from libra_edge import errors
from libra_edge.errors import CrashedError, LibraError
from libra_edge.verification.isolation.messages import MOST_BYTES, Array, Nonsense, pack, unpack
from libra_edge.verification.isolation.worker import OPEN

TIME_LIMIT_S = 120.0
# What one release may map: its libraries and engines several times over, and a lot besides.
MEMORY_BYTES = 16 << 30
_WORKER = "libra_edge.verification.isolation.worker"
_LAST_WORDS_S = 5.0


def crashed(what: str, during: str) -> CrashedError:
    """What became of a release's code, and what it was asked for."""
    return CrashedError(
        "release-crashed",
        f"{what}, during {during}",
        "Do not run this release: compile the policy again.",
    )


class Child:
    """A process with one service of its own.

    Args:
        service: `module:Class` of what answers there, or `module:function` for a single answer.
        args: what it is opened with, as JSON knows it.
        time_limit_s: of each answer; then the process is killed.
        memory_bytes: address space it may use; None for engines of a GPU, which map all there is.

    Raises:
        CrashedError: it did not come up.
        LibraError: what the service raised.
    """

    def __init__(
        self,
        service: str,
        args: dict[str, Any],
        *,
        time_limit_s: float = TIME_LIMIT_S,
        memory_bytes: int | None = MEMORY_BYTES,
    ) -> None:
        self._time_limit_s = time_limit_s
        self._end = ""
        ours, theirs = socket.socketpair()
        with theirs:
            for each in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                limit = struct.pack("ll", max(1, round(time_limit_s)), 0)
                ours.setsockopt(socket.SOL_SOCKET, each, limit)
            root = str(Path(__file__).resolve().parents[3])
            inherited = os.environ.get("PYTHONPATH")
            path = os.pathsep.join([root, *([inherited] if inherited else [])])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        opening = {"call": OPEN, "service": service, "args": args, "memory_bytes": memory_bytes}
        try:
            self.opened, _ = self._ask(opening, [])
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arrays: Array, **args: Any) -> tuple[dict[str, Any], list[Array]]:
        """One answer of the service.

        Raises:
            CrashedError: its process ended, or gave no answer in time; so does every later call.
            LibraError: what the service raised.
        """
        return self._ask({"call": method, "args": args}, arrays)

    def _ask(
        self, head: dict[str, Any], arrays: Sequence[Array]
    ) -> tuple[dict[str, Any], list[Array]]:
        during = head["call"]
        if self._end:
            raise crashed(self._end, during)
        try:
            self._connection.send_bytes(pack(head, arrays))
            if not self._connection.poll(self._time_limit_s):
                self._stop(f"no answer within {self._time_limit_s:g} s", during)
            answer, found = unpack(self._connection.recv_bytes(MOST_BYTES))
        except Nonsense as error:
            self._stop(f"an answer that is none ({error})", during)
        except (EOFError, OSError):
            self._stop("", during)
        if "result" in answer:
            return answer["result"], found
        if "error" in answer:
            raise _as_it_was(answer["error"])
        raise crashed(str(answer.get("broken")), during)

    def _stop(self, why: str, during: str) -> NoReturn:
        with suppress(subprocess.TimeoutExpired):
            if not why:
                self._process.wait(_LAST_WORDS_S)
        code = self._process.poll()
        self._kill()
        self._end = why or _in_words(code)
        raise crashed(self._end, during)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the process; harmless when repeated."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def call_apart(
    function: str,
    args: dict[str, Any],
    *,
    time_limit_s: float = TIME_LIMIT_S,
    memory_bytes: int | None = MEMORY_BYTES,
) -> dict[str, Any]:
    """What `module:function` answers to JSON arguments, in a process of its own.

    Args:
        function: what to call; it gives a plain dictionary.
        args: its arguments.
        time_limit_s: for all of it.
        memory_bytes: address space it may use, or None.

    Raises:
        CrashedError: the process did not live to answer.
        LibraError: what the function raised.
    """
    with Child(function, args, time_limit_s=time_limit_s, memory_bytes=memory_bytes) as child:
        return child.opened


def _in_words(code: int | None) -> str:
    """How a process ended."""
    if code is None:
        return "it stopped answering"
    if code >= 0:
        return f"it ended its process with exit code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _as_it_was(told: Any) -> LibraError:
    """An error of the child as the nearest of ours."""
    try:
        kinds, words = list(told["kinds"]), [str(word) for word in told["words"]]
        known = (getattr(errors, str(name), None) for name in kinds)
        kind = next(k for k in known if isinstance(k, type) and issubclass(k, LibraError))
        return kind(*words[:3])
    except (KeyError, TypeError, StopIteration):
        return crashed("an error that is none", "a call")
