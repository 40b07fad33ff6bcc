"""Arguments that the C ABI has to refuse, leaving every output as it was."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.verification.native.async_parts import Options
from libra_edge.verification.native.driver import observation
from libra_edge.verification.native.pair import Desk, Differs
from libra_edge.verification.native.probe import Contract
from libra_edge.verification.native.scripts.async_loop import BEGIN_NS
from libra_edge.verification.native.scripts.observations import Observer

_LAST = 2**62
Call = Callable[..., int]


def calls(desk: Desk) -> None:
    """NULL and wrong counts, in every place of every function."""
    subject, contract = desk.subject, desk.subject.contract
    plan, chunk = contract.plan_steps * contract.dims, contract.chunk * contract.dims
    length = contract.instruction_length
    with desk.pair() as pair:
        see, handle, library = Observer(subject, 61), pair.native.handle, subject.library
        pair.set_instruction(subject.words[0])
        pair.observe(*see.calm(), 5)
        pair.step()
        images, state = see.calm()
        raw, words = observation(images, state, 0), subject.words[0].copy()
        intent, noise = np.zeros(plan, np.int32), np.zeros(chunk, np.float32)
        margin, size = np.zeros(plan, np.float32), ctypes.c_uint32()
        floats = ctypes.POINTER(ctypes.c_float)
        action, info = margin.ctypes.data_as(floats), ctypes.byref(abi.StepInfo())
        seen, tick = ctypes.byref(raw), ctypes.byref(abi.TickInfo())
        w, i, m, n = (ctypes.c_void_p(a.ctypes.data) for a in (words, intent, margin, noise))
        right: dict[str, tuple[Any, ...]] = {
            "le_observe": (handle, seen, None, 0),
            "le_set_instruction": (handle, w, length, None, 0),
            "le_step": (handle, action, contract.dims, info, None, 0),
            "le_plan": (handle, seen, w, length, i, m, plan, None, 0),
            "le_refine": (handle, seen, i, n, n, chunk, None, 0),
            "le_last_plan": (handle, i, plan),
            "le_tokenize": (handle, b"x", w, length, None, 0),
            "le_reset": (handle, 0),
            "le_info": (handle, ctypes.byref(abi.PolicyInfo())),
            "le_stop": (handle,),
            "le_stats": (handle, ctypes.byref(abi.StatsInfo())),
            "le_tick": (handle, 0, action, contract.dims, tick),
            "le_noise": (0, 0, n, chunk),
            "le_fault_text": (handle, None, 0),
            "le_camera_size": (handle, 0, ctypes.byref(size), ctypes.byref(size)),
        }
        # What may be NULL or of any size.
        free = {("le_step", 3), ("le_noise", 0), ("le_noise", 1), ("le_noise", 3), ("le_reset", 1)}
        free |= {("le_tick", 1), ("le_tick", 4)}
        for name, arguments in right.items():
            function: Call = getattr(library, name)
            for place, value in enumerate(arguments):
                wrong = _wrong(value) if (name, place) not in free else ()
                if value is None or (name != "le_fault_text" and value == 0):
                    continue
                for other in wrong:
                    status = function(*arguments[:place], other, *arguments[place + 1 :])
                    _refused(f"{name}, argument {place} as {other}", status)
        if (
            intent.any()
            or margin.any()
            or noise.any()
            or size.value
            or (words != subject.words[0]).any()
        ):
            raise Differs("a call that was refused has written to an output")
        _observations(library, handle, contract, raw)
        # Nothing of it has changed what the policy does.
        pair.step()


def _wrong(value: Any) -> tuple[Any, ...]:
    return (value - 1, value + 1) if isinstance(value, int) else (None,)


def _refused(what: str, status: int) -> None:
    if status != abi.INVALID_ARGUMENT:
        raise Differs(f"{what}: status {status}, it should be {abi.INVALID_ARGUMENT}")


def _observations(
    library: ctypes.CDLL, handle: Any, contract: Contract, right: abi.Observation
) -> None:
    size = ctypes.sizeof(abi.Observation)
    changes: tuple[dict[str, Any], ...] = (
        *({"image_bytes": right.image_bytes + more} for more in (-1, 1)),
        *({"state_count": right.state_count + more} for more in (-1, 1)),
        *({"images": None}, {"state": None}, {"struct_size": size - 1}, {"struct_size": 2**20}),
        {"reserved": (ctypes.c_uint64 * 4)(0, 0, 0, 1)},
    )
    for change in changes:
        fields = {field[0]: getattr(right, field[0]) for field in right._fields_}
        raw = abi.Observation(**fields | change)
        status = library.le_observe(handle, ctypes.byref(raw), None, 0)
        _refused(f"le_observe with {change}", status)


def run_options(desk: Desk) -> None:
    """Every field of `le_run_options` at its bounds, and one past them."""
    contract = desk.subject.contract
    chunk, chunks, total = contract.chunk, contract.chunks_per_plan, contract.plan_steps
    shared = {"blend": 1, "blend_steps": 1}
    wrong: list[dict[str, Any]] = [
        *({"flags": 4}, {"flags": 2**31 + abi.RUN_MANUAL}, {"reserved0": 1}),
        {"reserved": (ctypes.c_uint64 * 4)(0, 0, 0, 1)},
        {"struct_size": ctypes.sizeof(abi.RunOptions) - 1},
        *({"chunks_per_plan": chunks + 1}, {"refill_at": chunks + 1}),
        *({"refine_ahead_steps": total + 1}, {"blend": 3}, {"blend_steps": 1}, {"blend": 1}),
        *({"blend": other, "blend_steps": 1} for other in (3, 2**31) if chunk > 1),
        *({"blend": 1, "blend_steps": chunk}, {"blend": 2, "blend_steps": chunk}),
        *({"frozen_steps": 1}, shared | {"frozen_steps": 1}),
        *({"blend": 2, "blend_steps": 1, "frozen_steps": 2}, {"max_observation_age_ns": _LAST + 1}),
        *({"engine_timeout_ns": _LAST + 1}, {"poll_ns": 10**9 + 1}),
        *({"planner_priority": 100}, {"refiner_priority": 100}),
    ]
    right = [
        Options(chunks, chunks, total, 2**32 - 1, 0, 0, 0, _LAST, _LAST),
        Options(1, 1, 1, 1, 0, 0, 0, 1, 1),
    ]
    if chunk > 1:
        right += [Options(blend=1, blend_steps=1), Options(blend=2, blend_steps=chunk - 1)]
        right += [Options(blend=2, blend_steps=chunk - 1, frozen_steps=chunk - 1)]
    with desk.pair() as pair:
        for fields in wrong:
            raw = abi.RunOptions(**{"flags": abi.RUN_MANUAL, **fields})
            status = desk.subject.library.le_start(pair.native.handle, ctypes.byref(raw), None, 0)
            _refused(f"le_start with {fields}", status)
        for options in right:
            pair.start(options)
            pair.tick(BEGIN_NS)
            pair.stop()
