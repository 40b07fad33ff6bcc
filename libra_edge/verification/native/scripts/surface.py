"""What the C ABI tells, takes and computes besides control steps."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from libra_edge.binding import abi
from libra_edge.errors import LibraError
from libra_edge.policy.config import ActionDim, StateDim
from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.tokenizer import PAD, UNKNOWN, Tokenizer
from libra_edge.verification.native import probe
from libra_edge.verification.native.driver import observation
from libra_edge.verification.native.pair import Desk, Differs, difference
from libra_edge.verification.native.scripts.observations import Observer
from libra_edge.verification.native.scripts.opening import TOKENIZER

_TELEMETRY = b"ORT_DISABLE_TELEMETRY"
_FLOATS = ("lower", "upper", "max_step_change", "max_acceleration", "max_jerk")
# For threads of this process to come or to go, on a machine under load.
_PATIENCE_S = 20.0


def _require(call: str, expected: Any, found: Any) -> None:
    if words := difference(expected, found):
        raise Differs(f"{call} {words}")


def description(desk: Desk) -> None:
    """Sizes, names, units, kinds and limits, in order."""
    subject, contract = desk.subject, desk.subject.contract
    robot, library = contract.embodiment, subject.library
    with desk.pair() as pair:
        raw, handle = abi.PolicyInfo(), pair.native.handle
        _require("le_info", abi.OK, library.le_info(handle, ctypes.byref(raw)))
        tokenizer = Tokenizer(subject.release / TOKENIZER, contract.instruction_length)
        expected = {
            "bins": contract.bins,
            "chunk": contract.chunk,
            "chunks_per_plan": contract.chunks_per_plan,
            "plan_steps": contract.plan_steps,
            "action_dim": contract.dims,
            "state_dim": len(robot.state),
            "cameras": len(robot.cameras),
            "image_height": robot.image_height,
            "image_width": robot.image_width,
            "instruction_length": contract.instruction_length,
            "threads": 1,
            "control_hz": robot.control_hz,
            "name": b"probe",
            "abi_version": abi.ABI_VERSION,
            "flags": 0,
            "vocabulary": tokenizer.vocabulary,
        }
        for name, value in expected.items():
            _require(f"le_info: {name}", value, getattr(raw, name))
        for v, camera in enumerate((*robot.cameras, None)):
            wanted = camera and camera.encode()
            _require(f"le_camera_name {v}", wanted, library.le_camera_name(handle, v))
            _camera_size(library, handle, v, (robot.image_height, robot.image_width))
        for p, state in enumerate((*robot.state, None)):
            _dim(f"le_state_dim {p}", library.le_state_dim, handle, p, state)
        for d, action in enumerate((*robot.actions, None)):
            _dim(f"le_action_dim {d}", library.le_action_dim, handle, d, action)


def _camera_size(library: ctypes.CDLL, handle: Any, camera: int, size: tuple[int, int]) -> None:
    """Height and width; of a camera that is none, nothing."""
    height, width = ctypes.c_uint32(77), ctypes.c_uint32(77)
    status = library.le_camera_size(handle, camera, ctypes.byref(height), ctypes.byref(width))
    there = library.le_camera_name(handle, camera) is not None
    expected = (abi.OK, *size) if there else (abi.INVALID_ARGUMENT, 77, 77)
    _require(f"le_camera_size {camera}", expected, (status, height.value, width.value))


def _dim(
    call: str, describe: Any, handle: Any, index: int, dim: StateDim | ActionDim | None
) -> None:
    raw = abi.DimInfo(flags=77)
    status = describe(handle, index, ctypes.byref(raw))
    if dim is None:
        _require(call, (abi.INVALID_ARGUMENT, 77), (status, raw.flags))
        return
    inf = math.inf
    limits, kind, flags = (-inf, *[inf] * 4), "none", 0
    if isinstance(dim, ActionDim):
        changes = [dim.max_step_change, dim.max_acceleration, dim.max_jerk]
        limits, kind = (dim.lower, dim.upper, *(change or inf for change in changes)), dim.kind
        flags = abi.DIM_FAULTS * (dim.on_limit == "fault")
    expected = (abi.OK, dim.name.encode(), dim.unit.encode(), abi.KINDS.index(kind), flags)
    _require(call, expected, (status, raw.name, raw.unit, raw.kind, raw.flags))
    found = np.array([getattr(raw, name) for name in _FLOATS], dtype=np.float32)
    _require(f"{call}: limits", np.array(limits, dtype=np.float32), found)


def words(desk: Desk) -> None:
    """`le_tokenize` against the tokenizers library: every word, and what is none."""
    subject, length = desk.subject, desk.subject.contract.instruction_length
    tokenizer = Tokenizer(subject.release / TOKENIZER, length)
    with desk.pair() as pair:
        found = _tokenize(pair.native.handle, subject.library, b"", length)
        if found[0] == abi.INCOMPATIBLE:
            return
        for text in (*_texts(subject.vocabulary, length), *_ODD):
            try:
                status, tokens = abi.OK, tokenizer.encode(text)
            except LibraError:
                status, tokens = abi.INVALID_ARGUMENT, np.full(length, -7)
            found = _tokenize(pair.native.handle, subject.library, text.encode(), length)
            _require(f"le_tokenize {text[:60]!r}: status", status, found[0])
            _require(f"le_tokenize {text[:60]!r}:", tokens, found[1])
        for data in (b"open \xff", b"\xc0\xaf", b"\xed\xa0\x80", b"a\xf4\x90\x80\x80"):
            found = _tokenize(pair.native.handle, subject.library, data, length)
            _require(f"le_tokenize {data!r}: status", abi.INVALID_ARGUMENT, found[0])


_ODD = ("", " ", "\t\n", "\u00a0", "zzqx", "zzqx zzqy", "\U0001f600", "\u212a", "\u0130", "\u03a3")


def _texts(vocabulary: Mapping[str, int], length: int) -> list[str]:
    plain = vocabulary.keys() - {PAD, UNKNOWN}
    known = sorted(plain, key=lambda word: (len(word), word))[:400] or [UNKNOWN]
    one, last = known[0], known[-1]
    texts = [*known, *(word.upper() for word in known), *(word.title() for word in known)]
    texts += [f"{one}{space}{last}" for space in (" ", "  ", "\t", "\u00a0", "\u3000", "\u0085")]
    texts += [f"{one}{sign}{last}" for sign in ("-", "_", ",", ".", "'", "1", "\u00e9", "\u0301")]
    texts += [" ".join([one] * count) for count in (length - 1, length, length + 1) if count > 0]
    texts += [
        f"{PAD} {one}",
        f"{UNKNOWN} {one}",
        f"zzqx {one}",
        f"{one} zzqx",
        f" {one} ",
        f"{one}!",
    ]
    return texts


def _tokenize(handle: Any, library: ctypes.CDLL, text: bytes, length: int) -> tuple[int, Any]:
    tokens = np.full(length, -7, dtype=np.int64)
    status = library.le_tokenize(handle, text, tokens.ctypes.data, length, None, 0)
    return status, tokens


def engine_calls(desk: Desk) -> None:
    """`le_plan` and `le_refine`: their numbers, what they refuse; control goes on as it was."""
    subject, contract = desk.subject, desk.subject.contract
    engines, rng = probe.Probe(contract), np.random.default_rng(51)
    with desk.pair() as pair:
        see, handle = Observer(subject, 51), pair.native.handle
        pair.set_instruction(subject.words[0])
        for code in (0, 0, 0, *range(probe.CODES)):
            pair.observe(*see.calm())
            pair.step()
            images, state = see.coded(code, int(rng.choice((0, 255, 99))))
            _plan(subject.library, handle, engines, (images, state, subject.words[1]))
            chunk = (contract.chunk, contract.dims)
            intent = rng.integers(0, contract.bins, chunk).astype(np.int32)
            noise = chunk_noise(code, 2**64 - 1, chunk)
            _refine(subject.library, handle, engines, (images, state, intent, noise))
            for wrong in (-1, contract.bins):
                bad = intent.copy()
                bad[-1, -1] = wrong
                status = _refine_status(subject.library, handle, images, state, bad, noise)[0]
                _require(f"le_refine with intent {wrong}: status", abi.INVALID_ARGUMENT, status)
            for value in (np.nan, np.inf):
                bad_noise, bad_state = noise.copy(), state.copy()
                bad_noise[-1, -1] = bad_state[-1] = value
                for place, loud in ((state, bad_noise), (bad_state, noise)):
                    status = _refine_status(subject.library, handle, images, place, intent, loud)[0]
                    _require(f"le_refine with {value}: status", abi.NOT_FINITE, status)


def _plan(library: ctypes.CDLL, handle: Any, engines: probe.Probe, inputs: tuple[Any, ...]) -> None:
    images, state, words = inputs
    shape = (engines.contract.plan_steps, engines.contract.dims)
    intent, margin = np.full(shape, -7, np.int32), np.full(shape, -7, np.float32)
    raw = observation(images, state, 0)
    status = library.le_plan(
        handle,
        ctypes.byref(raw),
        *(words.ctypes.data, words.size, intent.ctypes.data, margin.ctypes.data, intent.size),
        *(None, 0),
    )
    expected, wanted = abi.OK, (np.full_like(intent, -7), np.full_like(margin, -7))
    try:
        planned = engines.plan(images, words, state)
        if not np.isfinite(planned[1]).all():
            expected = abi.NOT_FINITE
        elif planned[0].min() < 0 or planned[0].max() >= engines.contract.bins:
            expected = abi.ENGINE
        else:
            wanted = planned
    except probe.EngineFailure:
        expected = abi.ENGINE
    _require("le_plan: status", expected, status)
    _require("le_plan: intent", wanted[0], intent)
    _require("le_plan: margin", wanted[1], margin)


def _refine(
    library: ctypes.CDLL, handle: Any, engines: probe.Probe, inputs: tuple[Any, ...]
) -> None:
    status, actions = _refine_status(library, handle, *inputs)
    expected, wanted = abi.OK, np.full_like(actions, -7)
    try:
        refined = engines.refine(*inputs)
        if np.isfinite(refined).all():
            wanted = refined
        else:
            expected = abi.NOT_FINITE
    except probe.EngineFailure:
        expected = abi.ENGINE
    _require("le_refine: status", expected, status)
    _require("le_refine: actions", wanted, actions)


def _refine_status(
    library: ctypes.CDLL, handle: Any, images: Any, state: Any, intent: Any, noise: Any
) -> tuple[int, Any]:
    actions = np.full(noise.shape, -7, np.float32)
    raw = observation(images, state, 0)
    status = library.le_refine(
        handle,
        ctypes.byref(raw),
        *(intent.ctypes.data, noise.ctypes.data, actions.ctypes.data, actions.size),
        *(None, 0),
    )
    return status, actions


def noise(desk: Desk) -> None:
    """`le_noise`: seeds and chunk numbers of every size, counts that do not divide."""
    rng = np.random.default_rng(52)
    numbers = [0, 1, 2**31, 2**32 - 1, 2**32, 2**33 + 1, 2**63, 2**64 - 1]
    pairs = [(seed, chunk) for seed in numbers for chunk in numbers]
    for _ in range(60):
        seed, chunk = (int(n) for n in rng.integers(0, 2**64, 2, dtype=np.uint64))
        pairs.append((seed, chunk))
    for i, (seed, chunk) in enumerate(pairs):
        # Thousands of numbers once: some branches are seldom taken.
        count = 20_000 if i == len(pairs) - 1 else i % 9
        found = np.full(count + 1, -7, np.float32)
        status = desk.subject.library.le_noise(seed, chunk, found.ctypes.data, count)
        wanted = np.append(chunk_noise(seed, chunk, (count,)), np.float32(-7))
        _require("le_noise: status", abi.OK, status)
        _require(f"le_noise, seed {seed}, chunk {chunk}:", wanted, found)


_LONG_PLAN = 4


def threads(desk: Desk) -> None:
    """Threads of its own: none when open, two while async mode runs, which then moves the robot."""
    library, before = desk.subject.library, _count()
    with desk.fresh() as pair:
        _require("le_open: threads", 0, _threads(before))
        see, handle = Observer(desk.subject, 53), pair.native.handle
        pair.set_instruction(desk.subject.words[0])
        raw = abi.RunOptions(max_observation_age_ns=10**15, engine_timeout_ns=10**15)
        _require("le_start", abi.OK, library.le_start(handle, ctypes.byref(raw), None, 0))
        _require("le_start: threads", 2, _threads(before + 2) + 2)
        tick, running = abi.TickInfo(), 0
        until, now = time.monotonic() + _PATIENCE_S, 10**12
        # A plan of fewer steps may be past before real threads can act on it.
        wanted = 3 if desk.subject.contract.plan_steps >= _LONG_PLAN else 0
        while running < wanted and time.monotonic() < until:
            pair.native.observe(*see.calm(), now)
            tick_action = np.zeros(desk.subject.contract.dims, np.float32)
            place = tick_action.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            library.le_tick(handle, now, place, tick_action.size, ctypes.byref(tick))
            running += tick.state == 0
            now += 1_000_000
            time.sleep(0.002)
        _require("le_tick with threads: steps RUNNING", wanted, running)
        library.le_stop(handle)
        _require("le_stop: threads", 0, _threads(before))


def _count() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _threads(expected: int) -> int:
    """How many more threads there are than expected; one that has ended may take a moment."""
    until = time.monotonic() + _PATIENCE_S / 4
    while _count() != expected and time.monotonic() < until:
        time.sleep(0.01)
    return _count() - expected


def silence(desk: Desk) -> None:
    """Telemetry's variable is as before, and no file has appeared at home."""
    environment = ctypes.CDLL(None)
    environment.getenv.restype = ctypes.c_char_p
    before = environment.getenv(_TELEMETRY)
    with desk.fresh():
        _require("le_open: ORT_DISABLE_TELEMETRY", before, environment.getenv(_TELEMETRY))
    for folder in {os.environ["HOME"], os.environ["TMPDIR"]}:
        _require(f"files in {folder}:", [], sorted(p.name for p in Path(folder).iterdir()))
