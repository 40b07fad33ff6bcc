"""What the C ABI writes: every output whole, and nothing past its end."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.verification.native.driver import observation
from libra_edge.verification.native.pair import Desk, Differs
from libra_edge.verification.native.scripts.async_loop import BEGIN_NS
from libra_edge.verification.native.scripts.observations import Observer

# What lies in memory before a call, and where nothing may be written.
FILLED, ROOM = 0x5A, 64
_SIZES = (0, 1, 2, 3, 17, 64, abi.ERROR_SIZE)
# Bytes that a structure of a later version might have more.
_MORE = 24
Call = Callable[..., int]


def _guarded(size: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(bytes([FILLED]) * (size + ROOM), size + ROOM)


def _require_untouched(call: str, room: ctypes.Array[ctypes.c_char], size: int) -> None:
    past = room.raw[size:]
    if past != bytes([FILLED]) * len(past):
        raise Differs(f"{call} writes past the {size} bytes that it was given")


def _texts(call: str, write: Callable[[Any, int], int], expected: int) -> None:
    """A sentence in buffers of many sizes: cut to fit, ended by a zero, the same from its start."""
    sentence = b""
    for size in reversed(_SIZES):
        room = _guarded(size)
        status = write(room, size)
        if status != expected:
            raise Differs(f"{call} into {size} bytes gives status {status}, not {expected}")
        _require_untouched(f"{call}: its text", room, size)
        found, ended, _ = room.raw[:size].partition(b"\0")
        sentence = sentence or found
        if size and (not ended or found != sentence[: size - 1]):
            raise Differs(f"{call} puts {found!r} into {size} bytes, of {sentence!r}")
    if len(sentence) < 2:
        raise Differs(f"{call} says nothing")


def texts(desk: Desk) -> None:
    """Error texts and the sentence on a fault, in buffers of every size."""
    subject = desk.subject
    with desk.fresh() as pair:
        see, handle, library = Observer(subject, 71), pair.native.handle, subject.library
        images, state = see.calm()
        raw, tokens = observation(images, state, 0), subject.words[0].copy()
        raw.image_bytes -= 1
        action = (ctypes.c_float * subject.contract.dims)()
        refused: dict[str, Callable[[Any, int], int]] = {
            "le_observe": lambda text, size: library.le_observe(
                handle, ctypes.byref(raw), text, size
            ),
            "le_set_instruction": lambda text, size: library.le_set_instruction(
                handle, tokens.ctypes.data, tokens.size + 1, text, size
            ),
            "le_step": lambda text, size: library.le_step(
                handle, action, len(action) + 1, None, text, size
            ),
            "le_start": lambda text, size: library.le_start(
                handle, ctypes.byref(abi.RunOptions(flags=4)), text, size
            ),
            "le_open": lambda text, size: library.le_open(
                ctypes.byref(abi.OpenOptions(abi_version=abi.ABI_VERSION, threads=0)),
                ctypes.byref(ctypes.c_void_p()),
                *(text, size),
            ),
        }
        for call, write in refused.items():
            _texts(call, write, abi.INVALID_ARGUMENT)
        pair.set_instruction(subject.words[0])
        pair.observe(*see.calm(), 1)
        images, state = see.calm()
        state[0] = np.nan
        pair.observe(images, state, 2)
        told: Callable[[Any, int], int] = lambda text, size: library.le_fault_text(  # noqa: E731
            handle, text, size
        )
        _texts("le_fault_text", told, abi.OK)


def outputs(desk: Desk) -> None:
    """Structures of this version and of a later one; arrays to their last number."""
    subject, contract = desk.subject, desk.subject.contract
    plan, chunk = contract.plan_steps * contract.dims, contract.chunk * contract.dims
    with desk.fresh() as pair:
        see, handle, library = Observer(subject, 72), pair.native.handle, subject.library
        pair.set_instruction(subject.words[0])
        pair.observe(*see.calm(), 1)
        images, state = see.calm()
        raw, words = ctypes.byref(observation(images, state, 0)), subject.words[0].copy()
        intent, noise = np.zeros(chunk, np.int32), np.zeros(chunk, np.float32)
        margin = np.zeros(plan, np.float32)
        i, n, w, m = (ctypes.c_void_p(a.ctypes.data) for a in (intent, noise, words, margin))
        dims, length = contract.dims, contract.instruction_length
        # One word: padding fills the rest, and several may be more tokens than there is room for.
        text = _word(subject.vocabulary)
        arrays: dict[str, tuple[int, Callable[[Any], int]]] = {
            "le_step": (4 * dims, lambda to: library.le_step(handle, to, dims, None, None, 0)),
            "le_plan": (
                4 * plan,
                lambda to: library.le_plan(handle, raw, w, length, to, m, plan, None, 0),
            ),
            "le_refine": (
                4 * chunk,
                lambda to: library.le_refine(handle, raw, i, n, to, chunk, None, 0),
            ),
            "le_noise": (4 * chunk, lambda to: library.le_noise(1, 2, to, chunk)),
            "le_noise of one number": (4, lambda to: library.le_noise(1, 2, to, 1)),
            "le_last_plan": (4 * plan, lambda to: library.le_last_plan(handle, to, plan)),
            "le_tokenize": (
                8 * length,
                lambda to: library.le_tokenize(handle, text, to, length, None, 0),
            ),
        }
        for call, (size, write) in arrays.items():
            room = _guarded(size)
            given: Any = ctypes.cast(room, ctypes.POINTER(ctypes.c_float))
            to = given if call == "le_step" else ctypes.c_void_p(_address(room))
            status = _call(call, write, to)
            _require_untouched(call, room, size)
            # A tokenizer whose rules the library does not have gives nothing.
            if status == abi.OK and bytes([FILLED]) * 4 == room.raw[size - 4 : size]:
                raise Differs(f"{call} does not write its last number")
        _structures(library, handle, contract.dims)
        pair.start()
        _structure("le_stats", abi.StatsInfo(), lambda to: library.le_stats(handle, to))
        tick = (ctypes.c_float * dims)()
        _structure(
            "le_tick", abi.TickInfo(), lambda to: library.le_tick(handle, BEGIN_NS, tick, dims, to)
        )


def _word(vocabulary: Mapping[str, int]) -> bytes:
    plain = sorted(word for word in vocabulary if not word.startswith("["))
    return (plain or ["[UNK]"])[0].encode()


def _address(room: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(room)


def _call(call: str, write: Callable[[Any], int], to: Any) -> int:
    """The status, which is OK, or of `le_tokenize` that it does not apply the rules."""
    status = write(to)
    allowed = (abi.OK, abi.INCOMPATIBLE) if call == "le_tokenize" else (abi.OK,)
    if status not in allowed:
        raise Differs(f"{call} gives status {status}, not {abi.OK}")
    return status


def _structures(library: ctypes.CDLL, handle: Any, dims: int) -> None:
    action = (ctypes.c_float * dims)()
    made: dict[str, tuple[ctypes.Structure, Callable[[Any], int]]] = {
        "le_info": (abi.PolicyInfo(), lambda to: library.le_info(handle, to)),
        "le_state_dim": (abi.DimInfo(), lambda to: library.le_state_dim(handle, 0, to)),
        "le_action_dim": (abi.DimInfo(), lambda to: library.le_action_dim(handle, 0, to)),
        "le_step": (
            abi.StepInfo(),
            lambda to: library.le_step(handle, action, dims, to, None, 0),
        ),
    }
    for call, (structure, write) in made.items():
        _structure(call, structure, write)


def _structure(call: str, own: ctypes.Structure, write: Callable[[Any], int]) -> None:
    """A structure of this version, then one that is longer: what it has more becomes zero."""
    size = ctypes.sizeof(own)
    for given in (size, size + _MORE):
        room = _guarded(given)
        ctypes.memmove(room, given.to_bytes(4, "little"), 4)
        _call(call, write, ctypes.cast(room, ctypes.POINTER(type(own))))
        _require_untouched(call, room, given)
        if room.raw[size:given] != bytes(given - size):
            raise Differs(f"{call} leaves what a later structure has more as it was")
        if int.from_bytes(room.raw[:4], "little") != given:
            raise Differs(f"{call} says that its structure has another size than was given")
