"""The child's side: opens one service by name and answers until nobody asks any more.

Run as `python -m libra_edge.verification.isolation.worker FD`. What a release prints goes nowhere.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from multiprocessing.connection import Connection
from typing import Any

from libra_edge.errors import LibraError
from libra_edge.verification.isolation.messages import MOST_BYTES, Array, pack, unpack

OPEN = "open"
Answer = tuple[dict[str, Any], list[Array]]


def main(descriptor: int) -> None:
    """Answer on a socket."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    service: Any = None
    while True:
        try:
            head, arrays = unpack(connection.recv_bytes(MOST_BYTES))
        except EOFError:
            # Not by way of the release's own destructors.
            os._exit(0)
        try:
            if head["call"] == OPEN:
                _limit_memory(head["memory_bytes"])
                service = _open(head["service"], head["args"])
                answer: Answer = (service, []) if isinstance(service, dict) else ({}, [])
            else:
                answer = getattr(service, head["call"])(*arrays, **head["args"])
            reply = pack({"result": answer[0]}, answer[1])
        except LibraError as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            words = [error.code, error.fact, error.remedy]
            reply = pack({"error": {"kinds": names, "words": words}})
        except MemoryError:
            reply = pack({"broken": "out of memory"})
        except Exception as error:  # told to the parent, which judges it
            reply = pack({"broken": f"{type(error).__name__}: {error}"[:1000]})
        connection.send_bytes(reply)


def _open(service: str, args: dict[str, Any]) -> Any:
    module, _, name = service.partition(":")
    return getattr(importlib.import_module(module), name)(**args)


def _limit_memory(size_bytes: int | None) -> None:
    if size_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
