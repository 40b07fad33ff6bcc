"""Every slot of ONNX Runtime's table that the runtime names does what its name says."""

from __future__ import annotations

import ctypes
import re
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libra_edge.runtime import build
from tests.runtime import tiny_release as tiny
from tests.runtime.tiny_release import D, H

HEADER = (build.SOURCE_ROOT / "src/engine/ort.h").read_text(encoding="utf-8")
SLOTS = {name: int(slot) for slot, name in re.findall(r"X\((\d+), (\w+), ", HEADER)}
# These take a provider: the engines of test_providers.py go through every one of them.
OF_PROVIDERS = {
    *("run_with_binding", "create_io_binding", "release_io_binding", "bind_input", "bind_output"),
    *("register_library", "append_provider", "device_memory", "create_shared_allocator"),
    *("shared_allocator", "copy_tensors", "model_compatibility"),
}
VERSION = int(re.findall(r"kOrtApiVersion = (\d+)", HEADER)[0])


class Ort:
    """Calls slots by name, and remembers which were called."""

    def __init__(self, library: Path) -> None:
        entry = ctypes.CDLL(str(library)).OrtGetApiBase
        entry.restype = POINTER(c_void_p)
        base = entry()
        get_api = ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)(base[0])
        self.version = ctypes.CFUNCTYPE(c_char_p)(base[1])().decode()
        self.table = ctypes.cast(get_api(VERSION), POINTER(c_void_p))
        self.called: set[str] = set()

    def call(self, name: str, *arguments: Any, result: Any = c_void_p) -> Any:
        self.called.add(name)
        function = ctypes.CFUNCTYPE(result, *[type(a) for a in arguments])(self.table[SLOTS[name]])
        return function(*arguments)

    def ok(self, name: str, *arguments: Any) -> None:
        status = self.call(name, *arguments)
        assert status is None, self.message(status)

    def message(self, status: int) -> str:
        text = self.call("error_message", c_void_p(status), result=c_char_p)
        self.call("release_status", c_void_p(status), result=None)
        return str(text.decode())

    def make(self, name: str, *arguments: Any) -> c_void_p:
        out = c_void_p()
        self.ok(name, *arguments, ctypes.pointer(out))
        assert out.value
        return out

    def count(self, name: str, *arguments: Any) -> int:
        out = c_size_t(99)
        self.ok(name, *arguments, ctypes.pointer(out))
        return out.value


def signature(ort: Ort, session: c_void_p, kind: str) -> dict[str, Any]:
    allocator, specs = ort.make("default_allocator"), {}
    for index in range(ort.count(f"{kind}_count", session)):
        name = c_char_p()
        ort.ok(f"{kind}_name", session, c_size_t(index), allocator, ctypes.pointer(name))
        text = name.value.decode() if name.value else ""
        ort.ok("allocator_free", allocator, ctypes.cast(name, c_void_p))
        info = ort.make(f"{kind}_type", session, c_size_t(index))
        tensor, element = ort.make("tensor_info", info), c_int()
        ort.ok("element_type", tensor, ctypes.pointer(element))
        rank = ort.count("dimension_count", tensor)
        shape = (c_int64 * rank)()
        ort.ok("dimensions", tensor, ctypes.cast(shape, c_void_p), c_size_t(rank))
        specs[text] = (element.value, list(shape))
        ort.call("release_type_info", info, result=None)
    return specs


def test_every_slot() -> None:
    library = build.onnxruntime_library()
    ort = Ort(library)
    assert ort.version == build.onnxruntime_version(library)
    env = ort.make("create_env", c_int(4), c_char_p(b"test"))
    options = ort.make("create_session_options")
    ort.ok("set_intra_op_threads", options, c_int(1))
    key = c_char_p(b"session.intra_op.allow_spinning")
    ort.ok("add_session_config_entry", options, key, c_char_p(b"0"))
    refused = ort.call("add_session_config_entry", options, c_char_p(b""), c_char_p(b"0"))
    assert "key" in ort.message(refused).lower()

    devices = c_void_p()
    count = c_size_t()
    ort.ok("get_ep_devices", env, ctypes.pointer(devices), ctypes.pointer(count))
    (device,) = ctypes.cast(devices, POINTER(c_void_p * count.value)).contents
    assert ort.call("ep_name", c_void_p(device), result=c_char_p) == b"CPUExecutionProvider"
    hardware = ort.call("ep_hardware", c_void_p(device))
    assert ort.call("hardware_type", c_void_p(hardware), result=c_int) == 0

    garbage = ctypes.create_string_buffer(b"garbage")
    out = c_void_p()
    arguments = (env, ctypes.cast(garbage, c_void_p), c_size_t(7), options, ctypes.pointer(out))
    assert "protobuf" in ort.message(ort.call("create_session_from_array", *arguments)).lower()
    graph = tiny.refiner_onnx()
    content = ctypes.cast(ctypes.create_string_buffer(graph, len(graph)), c_void_p)
    size = c_size_t(len(graph))
    session = ort.make("create_session_from_array", env, content, size, options)
    ort.call("release_session_options", options, result=None)

    numbers = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7}
    for kind, specs in (("input", tiny.REFINER_INPUTS), ("output", tiny.REFINER_OUTPUTS)):
        expected = {name: (numbers[dtype], shape) for name, (dtype, shape) in specs.items()}
        assert signature(ort, session, kind) == expected

    rng = np.random.default_rng(2)
    images, state = tiny.observation(rng)
    intent = rng.integers(0, tiny.N, (H, D), dtype=np.int32)
    noise, actions = rng.standard_normal((H, D)).astype(np.float32), np.empty((H, D), np.float32)
    memory = ort.make("create_cpu_memory_info", c_int(1), c_int(0))
    values = []
    for array in (images, state, intent, noise, actions):
        shape = (c_int64 * array.ndim)(*array.shape)
        pointer = ctypes.cast(shape, c_void_p)
        number = c_int(numbers[str(array.dtype)])
        data = (c_void_p(array.ctypes.data), c_size_t(array.nbytes))
        arguments = (memory, *data, pointer, c_size_t(array.ndim), number)
        values.append(ort.make("create_tensor", *arguments))
    names = (c_char_p * 4)(*[name.encode() for name in tiny.REFINER_INPUTS])
    inputs, outputs = (c_void_p * 4)(*values[:4]), (c_void_p * 1)(values[4])
    actions_name = (c_char_p * 1)(b"actions")
    ort.ok(
        *("run", session, c_void_p(), address(names), address(inputs), c_size_t(4)),
        *(address(actions_name), c_size_t(1), address(outputs)),
    )
    np.testing.assert_allclose(actions, tiny.refine(images, state, intent, noise), atol=1e-6)

    for value in values:
        ort.call("release_value", value, result=None)
    allocator, block = ort.make("default_allocator"), c_void_p()
    ort.ok("allocator_alloc", allocator, c_size_t(64), ctypes.pointer(block))
    ort.ok("allocator_free", allocator, block)
    for kind, thing in (("memory_info", memory), ("session", session), ("env", env)):
        ort.call(f"release_{kind}", thing, result=None)
    assert ort.called == set(SLOTS) - OF_PROVIDERS


def address(array: Any) -> c_void_p:
    return ctypes.cast(array, c_void_p)


def test_the_table_is_refused_to_a_version_too_new() -> None:
    entry = ctypes.CDLL(str(build.onnxruntime_library())).OrtGetApiBase
    entry.restype = POINTER(c_void_p)
    get_api = ctypes.CFUNCTYPE(c_void_p, ctypes.c_uint32)(entry()[0])
    assert get_api(VERSION)
    assert not get_api(10_000)


@pytest.mark.parametrize("name", ["run", "create_env"])
def test_the_header_is_read(name: str) -> None:
    assert SLOTS[name] > 0
    assert len(SLOTS) == 45
    assert SLOTS.keys() >= OF_PROVIDERS
