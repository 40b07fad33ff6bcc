"""Signed releases with a bit turned or cut short: Python, `le_open` and the agent refuse each.

Prints tried / taken. `le_open` looks at no signature and opens folders alone: it is asked where a
folder's members or manifest are changed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain
from pathlib import Path

import pytest

from libra_edge.binding import abi
from libra_edge.bundle.members import MANIFEST, SIGNATURE
from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.signature import check_release, sign_release
from libra_edge.errors import LibraError
from tests.bundle.signed import NOW, new_key, runnable_release, trusting
from tests.runtime import broken_signatures as broken
from tests.runtime import tiny_release
from tests.runtime.agents import Robot, cached_agent
from tests.runtime.test_release import try_open

KEY = new_key()
TRUST = trusting(KEY, last=date(2099, 12, 31))
# Its members are made up: this is what `le_open` says once it has looked at every byte of them.
MADE_UP = (abi.MALFORMED, "tokenizer.json is not JSON: input data is empty at byte 0.")
HIDDEN = (".git/config", ".github/workflow.yml", ".hidden", "engines/.x", "more", "lib/sub/x")


class Readers:
    """Asks all three; each answer has to be the same."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library, self.folder, self.agent = library, folder, cached_agent()
        self.tried = self.taken = 0

    def ask(self, release: Path, name: str) -> bool:
        taken = {"python": self.python(release), "agent": self.installed(release)}
        if release.is_dir() and not name.startswith(SIGNATURE):
            taken["C"] = try_open(release, self.library) == MADE_UP
        assert len(set(taken.values())) == 1, (name, taken)
        self.tried, self.taken = self.tried + 1, self.taken + taken["python"]
        return taken["python"]

    def python(self, release: Path) -> bool:
        try:
            check_release(release, TRUST, NOW)
        except LibraError:
            return False
        return True

    def installed(self, release: Path) -> bool:
        robot = Robot(self.agent, self.folder / "robot")
        shutil.rmtree(robot.root, ignore_errors=True)
        robot.root.mkdir()
        (robot.root / "trust.json").write_bytes(TRUST.to_bytes())
        done = robot.run("install", str(release))
        assert done.returncode in (0, 1, 2, 3, 4), done
        filled = [path.name for path in (robot.root / "slots").iterdir()]
        assert filled == (["a"] if done.returncode == 0 else [])
        return done.returncode == 0


@pytest.fixture
def readers(library: Path, tmp_path: Path) -> Readers:
    return Readers(library, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return runnable_release(tmp_path / "small", KEY)


@pytest.fixture
def packed(small: Path, tmp_path: Path) -> Path:
    pack_release(small, tmp_path / "small.libra")
    return tmp_path / "small.libra"


def drawn(bits: range, count: int) -> Iterable[int]:
    return random.Random(17).sample(bits, min(count, len(bits)))


def span(packed: bytes, content: bytes) -> range:
    """Where a file's bits lie in a packed release."""
    at = packed.index(content)
    return range(8 * at, 8 * (at + len(content)))


def changes_of(
    packed: bytes, whole: Path, few: int, many: int, step: int
) -> Iterator[tuple[str, bytes]]:
    """Bits of manifest and signature, `few` or all for 0; `many` others; every `step`th length."""
    spans = [span(packed, (whole / name).read_bytes()) for name in (MANIFEST, SIGNATURE)]
    for bits in spans:
        yield from broken.flipped(packed, iter(drawn(bits, few or len(bits))))
    others = [
        bit for bit in drawn(range(8 * len(packed)), 2 * many) if all(bit not in s for s in spans)
    ]
    yield from broken.flipped(packed, iter(others[:many]))
    yield from broken.cut(packed, range(0, len(packed), step))


def none_taken(readers: Readers, file: Path, changes: Iterable[tuple[str, bytes]]) -> None:
    for name, changed in changes:
        file.write_bytes(changed)
        assert not readers.ask(file, name), name


def test_packed(readers: Readers, small: Path, packed: Path) -> None:
    assert readers.ask(packed, "good")
    none_taken(readers, packed, changes_of(packed.read_bytes(), small, 40, 60, 977))
    print(f"packed: {readers.tried} tried, {readers.taken - 1} of the changed ones taken")


@pytest.mark.long
def test_packed_whole(readers: Readers, small: Path, packed: Path) -> None:
    none_taken(readers, packed, changes_of(packed.read_bytes(), small, 0, 10_000, 1))
    print(f"packed: {readers.tried} tried, {readers.taken} taken")


def in_files(release: Path, count: int) -> Iterator[tuple[str, Path, bytes]]:
    """`count` turned bits, and a length, of each file of a folder."""
    for path in sorted(path for path in release.rglob("*") if path.is_file()):
        data, name = path.read_bytes(), path.relative_to(release).as_posix()
        bits = drawn(range(8 * len(data)), count)
        lengths = drawn(range(len(data)), 1)
        for what, changed in chain(
            broken.flipped(data, iter(bits)), broken.cut(data, iter(lengths))
        ):
            yield f"{name}, {what}", path, changed
        yield f"{name}, longer", path, data + b"x"


@pytest.mark.parametrize("count", [1, pytest.param(400, marks=pytest.mark.long)])
def test_folders(readers: Readers, small: Path, count: int) -> None:
    assert readers.ask(small, "good")
    for name, path, changed in in_files(small, count):
        kept = path.read_bytes()
        path.write_bytes(changed)
        assert not readers.ask(small, name), name
        path.write_bytes(kept)
    assert readers.ask(small, "good")
    print(f"folders: {readers.tried} tried, {readers.taken - 2} of the changed ones taken")


@pytest.mark.parametrize("name", HIDDEN)
def test_a_folder_holds_its_members_and_nothing_else(
    readers: Readers, small: Path, name: str
) -> None:
    (small / name).parent.mkdir(parents=True, exist_ok=True)
    (small / name).write_bytes(b"\x7fELF")
    assert not readers.ask(small, name)


@pytest.mark.long
def test_a_large_one(readers: Readers, release: Path, tmp_path: Path) -> None:
    large = tiny_release.link_release(release, tmp_path / "large")
    sign_release(large, KEY)
    pack_release(large, tmp_path / "large.libra")
    data = (tmp_path / "large.libra").read_bytes()
    assert readers.ask(tmp_path / "large.libra", "good")
    none_taken(
        readers,
        tmp_path / "large.libra",
        chain(
            broken.flipped(data, iter(drawn(range(8 * len(data)), 100))),
            broken.cut(data, iter(drawn(range(len(data)), 100))),
        ),
    )
    print(f"large: {readers.tried} tried, {readers.taken - 1} of the changed ones taken")
