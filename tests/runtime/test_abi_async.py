"""Async mode through the C ABI itself: bad arguments, and outputs that stay untouched."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from libra_edge.binding import abi
from tests.runtime import test_abi
from tests.runtime import tiny_release as tiny
from tests.runtime.test_abi import CANARY, Change, Opened
from tests.runtime.tiny_release import D

# The fixture, by its name.
opened = test_abi.opened


def start(opened: Opened, **changes: Any) -> int:
    argument = abi.RunOptions(**{"struct_size": ctypes.sizeof(abi.RunOptions), **changes})
    return int(opened.library.le_start(opened.handle, ctypes.byref(argument), opened.error, 512))


@pytest.mark.parametrize(
    "change",
    [{"struct_size": 8}, {"flags": 4}, {"reserved0": 1}, {"reserved": (0, 1, 0, 0)}, {"blend": 3}],
)
def test_start_refuses_bad_options(opened: Opened, change: Change) -> None:
    assert start(opened, **change) == abi.INVALID_ARGUMENT
    assert opened.error.value
    assert start(opened, flags=abi.RUN_MANUAL) == abi.OK
    assert start(opened, flags=abi.RUN_MANUAL) == abi.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "change",
    [
        {"policy": None},
        {"action": None},
        {"action_count": D - 1},
        {"info": abi.TickInfo(struct_size=ctypes.sizeof(abi.TickInfo) - 1)},
        {"info": abi.TickInfo(struct_size=2**32 - 1)},
    ],
    ids=["no policy", "no action", "short action", "small info", "huge info"],
)
def test_tick_touches_nothing_on_error(opened: Opened, change: Change) -> None:
    def tick(**changes: Any) -> tuple[int, Any, abi.TickInfo]:
        action = np.full(D, CANARY, np.float32)
        info = abi.TickInfo(struct_size=ctypes.sizeof(abi.TickInfo), step=CANARY)
        arguments = {
            "policy": opened.handle,
            "now_ns": 1,
            "action": action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            "action_count": D,
            "info": info,
            **changes,
        }
        if arguments["info"] is not None:
            arguments["info"] = ctypes.byref(arguments["info"])
        return opened.library.le_tick(*arguments.values()), action, info

    assert tick()[0] == abi.INVALID_ARGUMENT  # before le_start
    assert start(opened, flags=abi.RUN_MANUAL) == abi.OK
    status, action, info = tick(**change)
    assert status == abi.INVALID_ARGUMENT
    assert (action == CANARY).all()
    assert info.step == CANARY
    assert tick(info=None)[0] == abi.OK
    status, action, info = tick()
    assert (status, info.step) == (abi.OK, 1)
    assert (action != CANARY).all()


def test_null_and_wrong_arguments_of_async_mode(opened: Opened) -> None:
    library, handle, number = opened.library, opened.handle, ctypes.c_uint32(CANARY)
    small = abi.StatsInfo(struct_size=ctypes.sizeof(abi.StatsInfo) - 1)
    intents = (ctypes.c_int32 * (tiny.L * D))()
    calls = [
        lambda: library.le_start(None, None, None, 0),
        lambda: library.le_start(handle, None, None, 0),
        lambda: library.le_stop(None),
        lambda: library.le_set_chunks_per_plan(None, 1),
        lambda: library.le_set_chunks_per_plan(handle, 0),
        lambda: library.le_work(None, 0, ctypes.byref(number)),
        lambda: library.le_work(handle, 0, None),
        lambda: library.le_work(handle, 8, ctypes.byref(number)),
        lambda: library.le_last_plan(None, intents, len(intents)),
        lambda: library.le_last_plan(handle, None, len(intents)),
        lambda: library.le_last_plan(handle, intents, len(intents) - 1),
        lambda: library.le_last_plan(handle, intents, len(intents)),
        lambda: library.le_stats(None, ctypes.byref(abi.StatsInfo(struct_size=8192))),
        lambda: library.le_stats(handle, None),
        lambda: library.le_stats(handle, ctypes.byref(small)),
        lambda: library.le_fault_text(None, opened.error, 512),
        lambda: library.le_fault_text(handle, None, 512),
    ]
    for started in (False, True):
        if started:
            assert start(opened, flags=abi.RUN_MANUAL) == abi.OK
        for index, call in enumerate(calls):
            assert call() == abi.INVALID_ARGUMENT, (started, index)
    assert number.value == CANARY
