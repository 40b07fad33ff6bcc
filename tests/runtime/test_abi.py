"""The C functions called as a careless C program would."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.binding import abi
from libra_edge.binding.library import load_library
from libra_edge.version import __version__
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import BAD_ACTION, BAD_MARGIN, D, H, L, P, T

CANARY = 77


@dataclass
class Opened:
    """One policy and the arguments of a good call to each function."""

    library: ctypes.CDLL
    handle: ctypes.c_void_p
    images: Any
    state: Any
    tokens: Any
    observation: abi.Observation
    error: Any


def options(release: Path, **changes: Any) -> abi.OpenOptions:
    values = {"abi_version": 1, "release_dir": os.fsencode(release), "threads": 1, **changes}
    values.setdefault("struct_size", ctypes.sizeof(abi.OpenOptions))
    return abi.OpenOptions(**values)


@pytest.fixture
def opened(release: Path, library: Path) -> Iterator[Opened]:
    loaded, handle = load_library(library), ctypes.c_void_p()
    error = ctypes.create_string_buffer(abi.ERROR_SIZE)
    argument = options(release)
    assert loaded.le_open(ctypes.byref(argument), ctypes.byref(handle), error, 512) == abi.OK
    images, state = tiny.observation(np.random.default_rng(3))
    tokens = np.arange(T)
    observation = abi.Observation(
        struct_size=ctypes.sizeof(abi.Observation),
        state_count=P,
        images=images.ctypes.data,
        image_bytes=images.nbytes,
        state=state.ctypes.data,
    )
    yield Opened(loaded, handle, images, state, tokens, observation, error)
    loaded.le_destroy(handle)


def plan(opened: Opened, **changes: Any) -> tuple[int, Any, Any]:
    intent, margin = np.full((L, D), CANARY, np.int32), np.full((L, D), CANARY, np.float32)
    arguments = {
        "policy": opened.handle,
        "observation": ctypes.byref(opened.observation),
        "tokens": opened.tokens.ctypes.data,
        "token_count": T,
        "intent": intent.ctypes.data,
        "margin": margin.ctypes.data,
        "plan_count": L * D,
        **changes,
    }
    return opened.library.le_plan(*arguments.values(), opened.error, 512), intent, margin


def refine(opened: Opened, **changes: Any) -> tuple[int, Any]:
    intent, noise = np.zeros((H, D), np.int32), np.zeros((H, D), np.float32)
    actions = np.full((H, D), CANARY, np.float32)
    arguments = {
        "policy": opened.handle,
        "observation": ctypes.byref(opened.observation),
        "intent": intent.ctypes.data,
        "noise": noise.ctypes.data,
        "actions": actions.ctypes.data,
        "chunk_count": H * D,
        **changes,
    }
    return opened.library.le_refine(*arguments.values(), opened.error, 512), actions


def step(opened: Opened, **changes: Any) -> tuple[int, Any, abi.StepInfo]:
    action, info = np.full(D, CANARY, np.float32), abi.StepInfo()
    info.struct_size, info.step = ctypes.sizeof(info), CANARY
    arguments = {
        "policy": opened.handle,
        "action": action.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        "action_count": D,
        "info": ctypes.byref(info),
        **changes,
    }
    return opened.library.le_step(*arguments.values(), opened.error, 512), action, info


def test_versions(library: Path) -> None:
    loaded = load_library(library)
    assert loaded.le_abi_version() == abi.ABI_VERSION
    assert loaded.le_version_string().decode() == __version__


def test_destroying_nothing_is_fine(library: Path) -> None:
    load_library(library).le_destroy(None)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"abi_version": 2}, abi.ABI_MISMATCH),
        ({"abi_version": 0}, abi.ABI_MISMATCH),
        ({"struct_size": 0}, abi.INVALID_ARGUMENT),
        ({"struct_size": ctypes.sizeof(abi.OpenOptions) - 1}, abi.INVALID_ARGUMENT),
        ({"struct_size": 2**32 - 1}, abi.INVALID_ARGUMENT),
        ({"release_dir": None}, abi.INVALID_ARGUMENT),
        ({"threads": 0}, abi.INVALID_ARGUMENT),
        ({"threads": 257}, abi.INVALID_ARGUMENT),
        ({"flags": 4}, abi.INVALID_ARGUMENT),
        ({"max_observation_age_ns": 2**63}, abi.INVALID_ARGUMENT),
        ({"reserved": (1,)}, abi.INVALID_ARGUMENT),
    ],
)
def test_open_refuses_bad_options(
    release: Path, library: Path, changes: dict[str, Any], status: int
) -> None:
    loaded, handle = load_library(library), ctypes.c_void_p(CANARY)
    argument, error = options(release, **changes), ctypes.create_string_buffer(512)
    assert loaded.le_open(ctypes.byref(argument), ctypes.byref(handle), error, 512) == status
    assert handle.value == CANARY
    assert error.value


def test_open_refuses_null(release: Path, library: Path) -> None:
    loaded, handle = load_library(library), ctypes.c_void_p(CANARY)
    argument = options(release)
    assert loaded.le_open(None, ctypes.byref(handle), None, 0) == abi.INVALID_ARGUMENT
    assert loaded.le_open(ctypes.byref(argument), None, None, 0) == abi.INVALID_ARGUMENT
    assert handle.value == CANARY


@pytest.mark.parametrize("size", [0, 1, 2, 20])
def test_error_text_is_cut_to_the_buffer(release: Path, library: Path, size: int) -> None:
    loaded, handle = load_library(library), ctypes.c_void_p()
    argument = options(release, threads=0)
    error = ctypes.create_string_buffer(b"\xee" * 64, 64)
    loaded.le_open(ctypes.byref(argument), ctypes.byref(handle), error, size)
    whole = b"threads is 0; it must be 1 to 256."
    expected = whole[: size - 1] + b"\0" if size else b""
    assert error.raw == expected + b"\xee" * (64 - len(expected))


def test_a_struct_of_a_newer_header(release: Path, library: Path) -> None:
    class Newer(ctypes.Structure):
        _fields_ = (("base", abi.OpenOptions), ("added", ctypes.c_uint64))

    loaded, error = load_library(library), ctypes.create_string_buffer(512)
    for added, status in ((0, abi.OK), (1, abi.INVALID_ARGUMENT)):
        handle = ctypes.c_void_p()
        newer = Newer(options(release, struct_size=ctypes.sizeof(Newer)), added)
        argument = ctypes.cast(ctypes.byref(newer), ctypes.POINTER(abi.OpenOptions))
        assert loaded.le_open(argument, ctypes.byref(handle), error, 512) == status
        loaded.le_destroy(handle)


def test_info_writes_no_further_than_struct_size(opened: Opened) -> None:
    size = ctypes.sizeof(abi.PolicyInfo)
    raw = (ctypes.c_uint8 * (size + 16))(*[0xEE] * (size + 16))
    info = ctypes.cast(raw, ctypes.POINTER(abi.PolicyInfo))
    info.contents.struct_size = size + 8
    assert opened.library.le_info(opened.handle, info) == abi.OK
    assert info.contents.struct_size == size + 8
    assert bytes(raw[size:]) == b"\0" * 8 + b"\xee" * 8
    info.contents.struct_size = size - 1
    before = bytes(raw)
    assert opened.library.le_info(opened.handle, info) == abi.INVALID_ARGUMENT
    assert bytes(raw) == before


Change = dict[str, Any]


@pytest.mark.parametrize(
    "change",
    [
        {"policy": None},
        {"observation": None},
        {"tokens": None},
        {"token_count": T - 1},
        {"intent": None},
        {"margin": None},
        {"plan_count": L * D - 1},
        {"plan_count": L * D + 1},
        {"tokens": np.full(T, -1).ctypes.data},
    ],
)
def test_plan_touches_nothing_on_error(opened: Opened, change: Change) -> None:
    if "tokens" in change and change["tokens"] is not None:
        negative = np.full(T, -1)
        change = {"tokens": negative.ctypes.data}
    status, intent, margin = plan(opened, **change)
    assert status == abi.INVALID_ARGUMENT
    assert (intent == CANARY).all()
    assert (margin == CANARY).all()
    assert opened.error.value
    status, intent, margin = plan(opened)
    assert status == abi.OK
    assert (intent != CANARY).all()
    assert opened.error.value == b""


@pytest.mark.parametrize(
    "change",
    [
        {"policy": None},
        {"observation": None},
        {"intent": None},
        {"noise": None},
        {"actions": None},
        {"chunk_count": H * D + 1},
    ],
)
def test_refine_touches_nothing_on_error(opened: Opened, change: Change) -> None:
    status, actions = refine(opened, **change)
    assert status == abi.INVALID_ARGUMENT
    assert (actions == CANARY).all()
    assert (refine(opened)[1] != CANARY).all()


@pytest.mark.parametrize("change", [{"policy": None}, {"action": None}, {"action_count": D + 1}])
def test_step_touches_nothing_on_error(opened: Opened, change: Change) -> None:
    status, action, info = step(opened, **change)
    assert status == abi.INVALID_ARGUMENT
    assert (action == CANARY).all()
    assert info.step == CANARY
    assert step(opened)[2].step == 0  # the refused call did not count


def test_step_refuses_a_small_info_and_takes_none(opened: Opened) -> None:
    small = abi.StepInfo(struct_size=ctypes.sizeof(abi.StepInfo) - 1)
    status, action, _ = step(opened, info=ctypes.byref(small))
    assert status == abi.INVALID_ARGUMENT
    assert (action == CANARY).all()
    status, action, info = step(opened, info=None)
    assert status == abi.OK
    assert (action != CANARY).all()
    assert info.step == CANARY
    assert step(opened)[2].step == 1


@pytest.mark.parametrize("channel", [BAD_MARGIN, BAD_ACTION])
def test_outputs_stay_when_an_engine_gives_nan(opened: Opened, channel: int) -> None:
    opened.images[0, 0, 0, channel] = 255
    if channel == BAD_MARGIN:
        status, intent, margin = plan(opened)
        assert (intent == CANARY).all()
        assert (margin == CANARY).all()
    else:
        status, actions = refine(opened)
        assert (actions == CANARY).all()
    assert status == abi.NOT_FINITE
    assert b"not finite" in opened.error.value


@pytest.mark.parametrize(
    "field",
    [
        {"struct_size": 8},
        {"state_count": P + 1},
        {"image_bytes": 3},
        {"images": None},
        {"state": None},
        {"reserved": (1, 0, 0, 0)},
    ],
)
def test_a_refused_observation_changes_nothing(opened: Opened, field: Change) -> None:
    for name, value in field.items():
        setattr(opened.observation, name, value)
    error, observation = (opened.error, 512), ctypes.byref(opened.observation)
    status = opened.library.le_observe(opened.handle, observation, *error)
    assert status == abi.INVALID_ARGUMENT
    assert plan(opened)[0] == abi.INVALID_ARGUMENT
    assert refine(opened)[0] == abi.INVALID_ARGUMENT
    assert step(opened)[2].reason == 1  # nothing observed, and no fault


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.library.le_info(None, ctypes.byref(abi.PolicyInfo(struct_size=256))),
        lambda o: o.library.le_info(o.handle, None),
        lambda o: o.library.le_reset(None, 0),
        lambda o: o.library.le_observe(None, ctypes.byref(o.observation), None, 0),
        lambda o: o.library.le_observe(o.handle, None, None, 0),
        lambda o: o.library.le_set_instruction(None, o.tokens.ctypes.data, T, None, 0),
        lambda o: o.library.le_set_instruction(o.handle, None, T, None, 0),
        lambda o: o.library.le_set_instruction(o.handle, o.tokens.ctypes.data, T + 1, None, 0),
    ],
)
def test_null_and_wrong_counts(opened: Opened, call: Callable[[Opened], int]) -> None:
    assert call(opened) == abi.INVALID_ARGUMENT


def test_nothing_keeps_the_caller_s_memory(opened: Opened) -> None:
    def run(overwrite: bool) -> Any:
        images, state, tokens = opened.images.copy(), opened.state.copy(), opened.tokens.copy()
        opened.observation.images, opened.observation.state = images.ctypes.data, state.ctypes.data
        opened.library.le_reset(opened.handle, 0)
        opened.library.le_observe(opened.handle, ctypes.byref(opened.observation), None, 0)
        opened.library.le_set_instruction(opened.handle, tokens.ctypes.data, T, None, 0)
        if overwrite:
            images[:], state[:], tokens[:] = 1, 1, 1
        return step(opened)[1]

    np.testing.assert_array_equal(run(overwrite=True), run(overwrite=False))
