"""What `le_open` refuses, besides a wrong manifest: what is not proven, not named, not whole."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from libra_edge.binding import abi
from libra_edge.binding.policy import Policy
from libra_edge.bundle.verify import verify_integrity
from libra_edge.errors import IncompatibleError, IntegrityError, ParityError
from tests.runtime import tiny_release as tiny
from tests.runtime.test_release import read, try_open

Copy = Callable[[], Path]
ONNXRUNTIME = "lib/libonnxruntime.so"


def reseal(release: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = tiny.manifest()
    change(content)
    tiny.seal(release, content)


def fail_parity(content: dict[str, Any]) -> None:
    content["parity"]["verdict"] = content["parity"]["checks"][0]["verdict"] = "fail"


def test_a_failed_verdict_opens_only_where_it_is_allowed(copy: Copy, library: Path) -> None:
    release = copy()
    reseal(release, fail_parity)
    for flags in (0, abi.ALLOW_RANDOM_WEIGHTS):
        status, text = try_open(release, library, flags)
        assert (status, "parity" in text) == (abi.UNPROVEN, True)
    assert try_open(release, library, abi.ALLOW_FAILED) == (abi.OK, "")
    with pytest.raises(ParityError, match="parity-failed"):
        Policy(release)
    with Policy(release, allow_failed=True) as policy:
        assert policy.info.parity_failed
        assert not policy.info.random_weights


def test_random_weights_open_only_where_they_are_allowed(copy: Copy, library: Path) -> None:
    release = copy()
    reseal(release, lambda content: content.update(random_weights=True))
    for flags in (0, abi.ALLOW_FAILED):
        status, text = try_open(release, library, flags)
        assert (status, "random" in text) == (abi.UNPROVEN, True)
    assert try_open(release, library, abi.ALLOW_RANDOM_WEIGHTS) == (abi.OK, "")
    with pytest.raises(IncompatibleError, match="random-weights"):
        Policy(release)
    with Policy(release, allow_random_weights=True) as policy:
        assert policy.info.random_weights
        assert not policy.info.parity_failed


def test_what_was_not_measured_opens_and_is_told(copy: Copy) -> None:
    release = copy()
    checks = tiny.manifest()["parity"]["checks"]
    gap = [*checks, {**checks[0], "verdict": "not measured"}]
    reseal(release, lambda c: c["parity"].update(verdict="not measured", checks=gap))
    with Policy(release) as policy:
        assert policy.info.parity_not_measured
        assert not policy.info.parity_failed


def make(path: Path, kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "file":
        path.write_bytes(b"more")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        os.mkfifo(path)


EXTRA = [
    "more",
    ".more",
    "model.sig.old",
    "engines/model.sig",
    "engines/more",
    "lib/.more",
    "golden/manifest.json",
]
EXTRA += ["engines/planner.engine.onnx", ".git/more", "manifest.json.old", "lib/lib"]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_a_signature_is_a_file_or_not_there(copy: Copy, library: Path, kind: str) -> None:
    release = copy()
    make(release / "model.sig", kind)
    status, _ = try_open(release, library)
    assert status == (abi.OK if kind == "file" else abi.INTEGRITY)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
@pytest.mark.parametrize("name", EXTRA)
def test_a_release_holds_nothing_else(copy: Copy, library: Path, name: str, kind: str) -> None:
    release = copy()
    make(release / name, kind)
    status, text = try_open(release, library)
    assert status == abi.INTEGRITY
    assert name.split("/")[0] in text
    with pytest.raises(IntegrityError):
        verify_integrity(release)


@pytest.mark.parametrize(
    "name",
    ["engines/planner.onnx", ONNXRUNTIME, "manifest.json", "tokenizer.json", "lib", "golden"],
)
def test_a_member_or_folder_that_is_a_link(copy: Copy, library: Path, name: str) -> None:
    release = copy()
    (release / name).rename(release.parent / "moved")
    (release / name).symlink_to(release.parent / "moved")
    status, text = try_open(release, library)
    assert status == abi.INTEGRITY, text
    with pytest.raises(IntegrityError):
        verify_integrity(release)


# ---- lib/libonnxruntime.so: what was hashed is what is loaded, if it is whole ------------------


def open_elsewhere(release: Path, library: Path) -> str:
    """The status of le_open in a process of its own, which it might take down."""
    code = (
        "import sys; from pathlib import Path; from tests.runtime.test_release import try_open\n"
        "print(*try_open(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(release), str(library)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, (result.returncode, result.stderr[-2000:])
    return result.stdout


def test_an_onnxruntime_that_is_cut_short_is_a_status_not_a_signal(
    copy: Copy, library: Path
) -> None:
    release = copy()
    whole = (release / ONNXRUNTIME).read_bytes()
    for length in (1, 63, 64, 100, 4096, len(whole) // 2, len(whole) * 3 // 4):
        tiny.replace(release / ONNXRUNTIME, whole[:length])
        tiny.seal(release, tiny.manifest())
        printed = open_elsewhere(release, library)
        assert printed.startswith(f"{abi.ENGINE} lib/libonnxruntime.so"), (length, printed)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\x7fELG"),
        (4, b"\x01"),  # 32 bits
        (16, struct.pack("<H", 2)),  # a program
        (18, struct.pack("<H", 40)),  # another machine
        (32, struct.pack("<Q", 2**63)),  # its table of segments
        (54, struct.pack("<H", 1)),
        (56, struct.pack("<H", 0)),  # no segments
        (56, struct.pack("<H", 65535)),
        (64 + 8, struct.pack("<Q", 2**64 - 1)),  # a segment's offset, then its size
        (64 + 32, struct.pack("<Q", 2**64 - 1)),
    ],
)
def test_an_onnxruntime_with_another_header(
    copy: Copy, library: Path, offset: int, value: bytes
) -> None:
    release = copy()
    content = bytearray((release / ONNXRUNTIME).read_bytes())
    content[offset : offset + len(value)] = value
    tiny.replace(release / ONNXRUNTIME, bytes(content))
    tiny.seal(release, tiny.manifest())
    printed = open_elsewhere(release, library)
    assert printed.startswith(f"{abi.ENGINE} lib/libonnxruntime.so"), printed


def mapped() -> list[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split(maxsplit=5)[5] for line in lines if "libonnxruntime" in line]


def test_onnxruntime_is_loaded_from_memory_and_once(release: Path, copy: Copy) -> None:
    # Releases from before this was so may be open in this process already.
    others = set(mapped())
    with Policy(release), Policy(copy()):
        new = set(mapped()) - (others - {"/memfd:libonnxruntime (deleted)"})
        files = {path for path in new if not path.startswith(str(Path(sys.prefix)))}
    assert files == {"/memfd:libonnxruntime (deleted)"}
    before = len(mapped())
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(5):
        Policy(release).close()
    assert len(mapped()) == before
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors


def test_two_releases_with_another_onnxruntime_each(release: Path, copy: Copy) -> None:
    other = copy()
    # A byte past all segments: another file, the same code.
    tiny.replace(other / ONNXRUNTIME, (other / ONNXRUNTIME).read_bytes() + b"\0")
    tiny.seal(other, tiny.manifest())
    images, state = tiny.observation(np.random.default_rng(3))
    tokens = np.zeros(tiny.T, np.int64)
    with Policy(release) as first, Policy(other) as second:
        found = [policy.plan(images, tokens, state)[0] for policy in (first, second, first)]
        assert first.info.manifest_sha256 != second.info.manifest_sha256
    for intent in found:
        assert (intent == tiny.plan(images, tokens, state)[0]).all()


@pytest.mark.parametrize("place", ["ramp.bin", "./ramp.bin", "../ramp.bin", "engines/planner.onnx"])
def test_a_graph_gets_no_weights_from_the_working_directory(
    copy: Copy, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    release = copy()
    model = onnx.ModelProto.FromString(tiny.planner_onnx())
    (ramp,) = [t for t in model.graph.initializer if list(t.dims) == [tiny.L, tiny.D]]
    (tmp_path / "work").mkdir()
    for folder in (tmp_path, tmp_path / "work"):
        (folder / "ramp.bin").write_bytes(ramp.raw_data)
    monkeypatch.chdir(tmp_path / "work")
    ramp.ClearField("raw_data")
    ramp.data_location = onnx.TensorProto.EXTERNAL
    entry = ramp.external_data.add()
    entry.key, entry.value = "location", place
    tiny.replace(release / "engines/planner.onnx", model.SerializeToString())
    tiny.seal(release, tiny.manifest())
    status, text = try_open(release, library)
    assert status == abi.ENGINE
    assert "xternal data" in text


# ---- tokens and faults ---------------------------------------------------------------------------


def test_a_token_outside_the_vocabulary_is_refused(release: Path) -> None:
    with Policy(release) as policy:
        assert policy.info.vocabulary == 10
        tokens = np.zeros(tiny.T, np.int64)
        images, state = tiny.observation(np.random.default_rng(3))
        for wrong in (10, -1, 2**32, 2**32 + 1, 2**63 - 1, -(2**63)):
            tokens[-1] = wrong
            with pytest.raises(Exception, match="no token"):
                policy.set_instruction(tokens)
            with pytest.raises(Exception, match="no token"):
                policy.plan(images, tokens, state)
        tokens[-1] = 9
        policy.set_instruction(tokens)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_fault_always_has_a_text(release: Path, asynchronous: bool) -> None:
    with Policy(release) as policy:
        if asynchronous:
            policy.start()
        assert policy.fault_text == ""
        images, state = tiny.observation(np.random.default_rng(3))
        with pytest.raises(Exception, match="not finite"):
            policy.observe(images, np.full_like(state, np.nan))
        assert policy.fault_text == "The observed state is not finite."
        policy.stop()
        assert policy.fault_text == "The observed state is not finite."
        policy.restart(0)
        assert policy.fault_text == ""


def test_what_the_manifest_names_is_told(release: Path, library: Path) -> None:
    with Policy(release) as policy:
        loaded, handle = policy._library, policy._open_handle
        names = [loaded.le_camera_name(handle, v) for v in range(tiny.V + 1)]
        assert names == [b"c0", b"c1", None]
        assert loaded.le_camera_name(None, 0) is None
        for dim, (kind, row) in enumerate(
            zip(tiny.KINDS, read(release)["embodiment"]["actions"], strict=True)
        ):
            info = abi.DimInfo()
            assert loaded.le_action_dim(handle, dim, ctypes.byref(info)) == abi.OK
            assert (info.name.decode(), info.unit.decode()) == (row["name"], row["unit"])
            assert abi.KINDS[info.kind] == kind
            assert (info.lower, info.upper) == (tiny.LOWER[dim], tiny.UPPER[dim])
            assert info.max_step_change == info.max_acceleration == float("inf")
        info = abi.DimInfo()
        assert loaded.le_state_dim(handle, tiny.P - 1, ctypes.byref(info)) == abi.OK
        assert (info.name, info.unit, info.kind) == (b"s2", b"m", 0)
        assert info.lower == -float("inf")
        for call, count in ((loaded.le_state_dim, tiny.P), (loaded.le_action_dim, tiny.D)):
            assert call(handle, count, ctypes.byref(info)) == abi.INVALID_ARGUMENT
            assert call(handle, 0, None) == abi.INVALID_ARGUMENT
            assert call(None, 0, ctypes.byref(info)) == abi.INVALID_ARGUMENT
            short = abi.DimInfo(struct_size=8)
            assert call(handle, 0, ctypes.byref(short)) == abi.INVALID_ARGUMENT


def test_limits_of_change_are_told(copy: Copy) -> None:
    release = copy()
    limits = {"max_step_change": 0.25, "max_acceleration": 0.125, "on_limit": "fault"}
    reseal(release, lambda content: content["embodiment"]["actions"][1].update(limits))
    with Policy(release) as policy:
        info = abi.DimInfo()
        loaded, handle = policy._library, policy._open_handle
        assert loaded.le_action_dim(handle, 1, ctypes.byref(info)) == abi.OK
        assert (info.max_step_change, info.max_acceleration) == (0.25, 0.125)
        assert info.flags == abi.DIM_FAULTS
