"""Attack releases on the robot's own doorstep: `libra-agent`, Python and C refuse each.

What is refused leaves nothing in a slot, and nothing at all outside the robot's folder. Prints
tried / let in.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.bundle.container import header
from libra_edge.bundle.members import MANIFEST, SIGNATURE
from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.signature import check_release
from libra_edge.bundle.signing.trust import Trust
from libra_edge.errors import LibraError
from tests.attacks.bundle.test_attacks import JSON_ATTACKS
from tests.attacks.releases.test_signed_releases import CHANGES, HIDDEN
from tests.bundle.signed import NOW, new_key, runnable_release, trusting
from tests.runtime import tiny_release
from tests.runtime.agents import Robot, cached_agent, stream
from tests.runtime.test_release import try_open

KEY, LEAKED = new_key(), new_key(2)
LAST = date(2099, 12, 31)
TRUST = trusting(KEY, LEAKED, last=LAST)
REFINER = "engines/refiner.onnx"
# What `le_open` says of the good one, whose members are made up, once it has looked at every byte.
MADE_UP = (abi.MALFORMED, "tokenizer.json is not JSON: input data is empty at byte 0.")
NOT_A_RELEASE = (abi.INVALID_ARGUMENT, abi.IO, abi.MALFORMED, abi.INTEGRITY, abi.INCOMPATIBLE)


def bytes_below(folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = path.read_bytes() if path.is_file() else "other"
    return found


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return robot_that_trusts(tmp_path, TRUST)


def robot_that_trusts(folder: Path, trust: Trust) -> Robot:
    robot = Robot(cached_agent(), folder / "robot/root")
    robot.root.mkdir(parents=True)
    (robot.root / "trust.json").write_bytes(trust.to_bytes())
    return robot


@contextmanager
def untouched(robot: Robot, folder: Path) -> Iterator[None]:
    """Nothing changes outside the robot's folder, and no slot is filled."""
    away = folder / "away"
    away.mkdir(exist_ok=True)
    (away / "kept").write_bytes(b"kept")
    before = bytes_below(folder / "shop") | bytes_below(away)
    yield
    assert bytes_below(folder / "shop") | bytes_below(away) == before
    assert {path.name for path in (folder / "robot").iterdir()} == {"root"}
    assert list((robot.root / "slots").iterdir()) == []
    assert not (robot.root / "current").is_symlink()
    allowed = {"slots", "lock", "incoming", "trust.json", "state.json"}
    assert {path.name for path in robot.root.iterdir()} <= allowed
    if (robot.root / "incoming").exists():
        parts = list((robot.root / "incoming").iterdir())
        assert all(part.name.endswith(".part") and part.is_file() for part in parts)


def refused_by_all(robot: Robot, release: Path, library: Path | None) -> None:
    with untouched(robot, robot.root.parents[1]):
        status, code = robot.refused("install", str(release))
        assert status in (1, 2, 3, 4), code
    with pytest.raises(LibraError):
        check_release(release, TRUST, NOW)
    if library is not None:
        found = try_open(release, library)
        assert found[0] in NOT_A_RELEASE
        assert found != MADE_UP


def test_the_good_one_is_let_in(robot: Robot, library: Path, tmp_path: Path) -> None:
    release = runnable_release(tmp_path / "shop", KEY)
    robot.ask("install", str(release))
    check_release(release, TRUST, NOW)
    assert try_open(release, library) == MADE_UP


def parent_symlink(release: Path) -> None:
    (release / "engines").rename(release.parent / "engines")
    (release / "engines").symlink_to(release.parent / "engines")


def symlink(release: Path) -> None:
    (release / REFINER).rename(release.parent / "refiner.onnx")
    (release / REFINER).symlink_to(release.parent / "refiner.onnx")


def case_clash(release: Path) -> None:
    shutil.copytree(release / "engines", release / "Engines")


def case_clash_of_a_member(release: Path) -> None:
    shutil.copyfile(release / REFINER, release / "engines/Refiner.onnx")


def name_in_no_utf8(release: Path) -> None:
    Path(os.fsdecode(os.fsencode(release) + b"/engines/\xff.onnx")).write_bytes(b"x")


def manifest_in_no_utf8(release: Path) -> None:
    text = (release / MANIFEST).read_bytes()
    (release / MANIFEST).write_bytes(text.replace("×".encode(), b"\xff"))


def hard_link_to_other_bytes(release: Path) -> None:
    (release.parent / "other").write_bytes((release / REFINER).read_bytes()[::-1] + b"x")
    (release / REFINER).unlink()
    os.link(release.parent / "other", release / REFINER)


def a_device(release: Path) -> None:
    (release / REFINER).unlink()
    (release / REFINER).symlink_to("/dev/zero")


FOLDERS = (parent_symlink, symlink, case_clash, case_clash_of_a_member, name_in_no_utf8)
FOLDERS += (manifest_in_no_utf8, hard_link_to_other_bytes, a_device)


@pytest.mark.parametrize("change", FOLDERS, ids=lambda change: change.__name__)
def test_folders(
    robot: Robot, library: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    release = runnable_release(tmp_path / "shop", KEY)
    change(release)
    refused_by_all(robot, release, library)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_signatures(robot: Robot, tmp_path: Path, change: Callable[[Path], None]) -> None:
    release = runnable_release(tmp_path / "shop", KEY)
    change(release)
    refused_by_all(robot, release, None)


@pytest.mark.parametrize("name", HIDDEN)
def test_files_beside_the_members(robot: Robot, library: Path, tmp_path: Path, name: str) -> None:
    release = runnable_release(tmp_path / "shop", KEY)
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_bytes(b"\x7fELF")
    refused_by_all(robot, release, library)


@pytest.mark.parametrize("attack", JSON_ATTACKS)
def test_manifests(robot: Robot, library: Path, tmp_path: Path, attack: str) -> None:
    """On a robot that asks for no signature, so that the manifest's own reader is what refuses."""
    (robot.root / "trust.json").write_text('{"schema": 1, "allow_unsigned": true, "keys": []}')
    release = runnable_release(tmp_path / "shop", KEY)
    (release / SIGNATURE).unlink()
    text = JSON_ATTACKS[attack]((release / MANIFEST).read_text("utf-8"))
    (release / MANIFEST).write_bytes(text.encode())
    with untouched(robot, tmp_path):
        assert robot.refused("install", str(release), "--allow-unsigned")[0] in (1, 3, 4)
    found = try_open(release, library)
    assert found[0] in NOT_A_RELEASE
    assert found != MADE_UP


@pytest.mark.parametrize(
    ("trust", "why"),
    [
        (trusting(KEY, last=date(2020, 1, 1)), "expired"),
        (trusting(KEY, role="development", last=LAST), "wrong role"),
        (trusting(LEAKED, last=LAST), "unknown key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keys_that_do_not_count(tmp_path: Path, trust: Trust, why: str) -> None:
    robot = robot_that_trusts(tmp_path, trust)
    release = runnable_release(tmp_path / "shop", KEY)
    with untouched(robot, tmp_path):
        assert robot.refused("install", str(release), "--allow-unsigned") == (
            3,
            "signature-refused",
        ), why


def entry(name: bytes, data: bytes, kind: bytes = b"0", target: bytes = b"") -> bytes:
    """A tar entry of any name and kind with a right check sum."""
    block = bytearray(header("x", len(data)))
    block[:100], block[156:157] = name.ljust(100, b"\0"), kind
    block[157:257] = target.ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def containers(packed: bytes) -> Iterator[tuple[str, bytes]]:
    at = packed.index(REFINER.encode().ljust(100, b"\0"))
    size = int(packed[at + 124 : at + 135], 8)
    end = at + 512 + -(-size // 512) * 512
    data, own = packed[at + 512 : at + 512 + size], packed[at:end]
    names = ("../../away/kept", "/tmp/evil", "engines/../../../away/kept", "Engines/refiner.onnx")
    for name in names:
        yield f"named {name}", packed[:at] + entry(name.encode(), data) + packed[end:]
        yield f"also {name}", packed[:at] + entry(name.encode(), data) + packed[at:]
    yield "no UTF-8", packed[:at] + entry(b"engines/\xff\xfe", data) + packed[end:]
    yield "duplicate", packed[:end] + own + packed[end:]
    yield "extra", packed[:-1024] + entry(b"engines/more.onnx", b"x") + packed[-1024:]
    yield "after its end", packed + entry(b"engines/more.onnx", b"x")
    for kind, what in ((b"1", "hard link"), (b"2", "symlink"), (b"3", "device"), (b"6", "fifo")):
        yield what, packed[:at] + entry(REFINER.encode(), b"", kind, b"../away/kept") + packed[end:]
    yield "parent symlink", packed[:at] + entry(b"engines", b"", b"2", b"../away") + packed[at:]
    yield "extended", packed[:at] + entry(b"x", b"19 path=../away/kept\n", b"x") + packed[at:]
    huge = header(REFINER, 8**11 - 1)
    yield "huge", packed[:at] + huge + packed[at + 512 :]
    yield "huge manifest", header(MANIFEST, 8**11 - 1) + packed[512:]
    yield "negative", packed[: at + 124] + b"-0000000001" + packed[at + 135 :]
    yield "a bomb of headers", packed[:at] + own * 2000 + packed[end:]


def test_containers(robot: Robot, tmp_path: Path) -> None:
    release = runnable_release(tmp_path / "shop", KEY)
    pack_release(release, tmp_path / "shop/good.libra")
    good = (tmp_path / "shop/good.libra").read_bytes()
    file, tried = tmp_path / "shop/attack.libra", 0
    for _, data in containers(good):
        file.write_bytes(data)
        refused_by_all(robot, file, None)
        tried += 1
    assert tried > 20
    robot.ask("install", str(tmp_path / "shop/good.libra"))
    print(f"containers: {tried} tried, 0 let in")


def heads(head: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    def row(**change: Any) -> dict[str, Any]:
        return {**head, "members": [{**head["members"][0], **change}, *head["members"][1:]]}

    for name in ("../../away/kept", "/tmp/evil", "engines/\0", "Manifest.json", MANIFEST, ""):
        yield f"named {name!r}", row(name=name)
    size = head["members"][0]["bytes"]
    for offset in (1, size + 1, 2**63, 2**64, -1, 0.5, None, "0"):
        yield f"offset {offset}", row(offset=offset)
    for count in (size + 1, 2**63, 2**64 - 1, -1, None):
        yield f"bytes {count}", row(bytes=count)
    yield "another digest", row(sha256="0" * 64)
    yield "twice", {**head, "members": [*head["members"], head["members"][-1]]}
    yield "huge manifest", {**head, "manifest_bytes": 2**40}
    yield "huge signature", {**head, "signature_bytes": 2**40}
    yield "no members", {**head, "members": {}}


def test_streams(robot: Robot, release: Path, tmp_path: Path) -> None:
    (robot.root / "trust.json").write_text('{"schema": 1, "allow_unsigned": true, "keys": []}')
    (tmp_path / "shop").mkdir()
    first, line, rest = stream(release).split(b"\n", 2)
    tried = 0
    for name, changed in heads(json.loads(line)):
        feed = b"\n".join((first, json.dumps(changed).encode(), rest))
        with untouched(robot, tmp_path):
            status, code = robot.refused("install", "-", "--allow-unsigned", feed=feed)
        assert status in (1, 2, 3), (name, code)
        tried += 1
    deep = (b"[" * 100_000, b'{"a":' * 50_000, b"", b"\xff" * 100, b"x" * 100_000)
    for text in deep:
        with untouched(robot, tmp_path):
            robot.refused("install", "-", "--allow-unsigned", feed=first + b"\n" + text + b"\n")
    print(f"streams: {tried + len(deep)} tried, 0 let in")


def test_a_hard_link_is_not_followed(robot: Robot, tmp_path: Path) -> None:
    """Neither what a release shares with others, nor what lies in the way on the robot."""
    release = runnable_release(tmp_path / "shop", KEY)
    os.link(release / REFINER, tmp_path / "shared")
    (robot.root / "incoming").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    for member in json.loads((release / MANIFEST).read_bytes())["members"].values():
        os.link(tmp_path / "precious", robot.root / f"incoming/{member['sha256']}.part")
        break
    robot.ask("install", str(release))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    (tmp_path / "shared").write_bytes(b"changed afterwards")
    robot.ask("verify", "--slot", "a")


def test_epochs(robot: Robot, tmp_path: Path) -> None:
    """No way back by the same key; a leaked key cannot shut the good one out."""
    steps = [(KEY, 3), (KEY, 2), (LEAKED, 2**31 - 1), (KEY, 3), (KEY, 4), (KEY, 3), (KEY, 0)]
    taken = []
    for index, (key, epoch) in enumerate(steps):
        release = runnable_release(tmp_path / "shop", key, f"n{index}", epoch)
        done = robot.run("install", str(release))
        taken.append(done.returncode == 0)
    assert taken == [True, False, True, True, True, False, False]
    (robot.root / "trust.json").write_bytes(TRUST.without(TRUST.keys[1].id).to_bytes())
    last = runnable_release(tmp_path / "shop", LEAKED, "leaked", 2**31 - 1)
    assert robot.refused("install", str(last)) == (3, "signature-refused")


def test_a_swap_between_verify_and_load(robot: Robot, release: Path, library: Path) -> None:
    """By whoever gets at the slot after it was verified: what is loaded is what is hashed."""
    (robot.root / "trust.json").write_text('{"schema": 1, "allow_unsigned": true, "keys": []}')
    robot.ask("install", str(release), "--allow-unsigned")
    robot.ask("verify", "--slot", "a")
    slot = robot.root / "slots/a"
    good = (slot / REFINER).read_bytes()
    bad = good.replace(b"actions", b"actionz", 1)
    hook = robot.root / "hooks/pre-activate"
    hook.parent.mkdir()
    hook.write_text(f'#!/bin/sh\ncp "$LIBRA_ROOT/swap" "$LIBRA_ROOT/slots/$1/{REFINER}"\n')
    hook.chmod(0o755)
    (robot.root / "swap").write_bytes(bad)
    robot.ask("activate")
    assert try_open(robot.root / "current", library)[0] == abi.INTEGRITY
    assert robot.refused("verify") == (3, "member-changed")
    tiny_release.replace(slot / REFINER, good)
    assert try_open(robot.root / "current", library)[0] == abi.OK
    for name in ("lib/libonnxruntime.so", "tokenizer.json", MANIFEST):
        kept = (slot / name).read_bytes()
        tiny_release.replace(slot / name, kept[:-1] + bytes([kept[-1] ^ 1]))
        assert try_open(slot, library)[0] in NOT_A_RELEASE, name
        assert robot.refused("verify", "--slot", "a")[0] == 3
        tiny_release.replace(slot / name, kept)
