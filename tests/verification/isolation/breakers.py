"""Services that do to their process what a release's code might."""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np

from libra_edge.errors import InputError


class Breaker:
    """Ends its process on request; an exit in the constructor is what a library could do."""

    def __init__(self, at_once: str = "") -> None:
        if at_once:
            getattr(self, at_once)()

    def segfault(self) -> None:
        ctypes.string_at(0)

    def abort(self) -> None:
        os.abort()

    def leave(self) -> None:
        os._exit(0)

    def hang(self) -> None:
        time.sleep(600)

    def allocate(self) -> tuple[dict[str, object], list[np.ndarray]]:
        return {}, [np.zeros(1 << 40, np.uint8)]

    def babble(self) -> tuple[dict[str, object], list[np.ndarray]]:
        return {"value": object()}, []

    def refuse(self) -> None:
        raise InputError("of-its-own", "A fact.", "A remedy.")

    def echo(self, *arrays: np.ndarray, word: str) -> tuple[dict[str, object], list[np.ndarray]]:
        return {"word": word}, [array.copy() for array in arrays]


def answer(number: int) -> dict[str, int]:
    return {"number": number + 1}
