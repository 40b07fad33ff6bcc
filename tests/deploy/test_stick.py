"""Releases that are carried to a robot by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from libra_edge.bundle.verify import verify_integrity
from libra_edge.deploy.flash import FlashRequest
from libra_edge.deploy.stick import carry
from libra_edge.errors import LibraError
from tests.bundle.examples import make_release
from tests.deploy.robots import write


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


def test_a_stick_carries_the_release_and_its_agent(tmp_path: Path, stick: Path) -> None:
    request = FlashRequest(write(tmp_path), allow_unsigned=True)
    planned = carry(stick, FlashRequest(request.release, allow_unsigned=True, dry_run=True))
    assert planned.condition == "planned"
    assert not list(stick.iterdir())
    done = carry(stick, request)
    assert done.condition == "carried"
    assert done.commands == planned.commands
    assert {p.name for p in stick.iterdir()} == {"example.libra", "libra-agent"}
    assert verify_integrity(stick / "example.libra").release_id == done.release_id
    words = [stick / "libra-agent", "status", "--root", tmp_path / "robot", "--json"]
    assert subprocess.run(words, check=True, capture_output=True).stdout
    assert carry(stick, request).condition == "already there"


def test_a_stick_with_another_release_of_that_name(tmp_path: Path, stick: Path) -> None:
    carry(stick, FlashRequest(write(tmp_path), allow_unsigned=True))
    other = write(tmp_path / "other", members={"tokenizer.json": b"other"})
    done = carry(stick, FlashRequest(other, allow_unsigned=True))
    assert verify_integrity(stick / "example.libra").release_id == done.release_id


@pytest.mark.parametrize("case", ["full", "unsigned", "no-agent", "no-stick", "foreign"])
def test_refusals(tmp_path: Path, stick: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make_release(tmp_path) if case == "no-agent" else write(tmp_path)
    if case == "full":
        usage = shutil.disk_usage(stick)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    if case == "foreign":
        (stick / "example.libra").mkdir()
        (stick / "example.libra" / "a").write_text("mine")
    folder = tmp_path / "nothing" if case == "no-stick" else stick
    before = sorted(stick.rglob("*"))
    with pytest.raises(LibraError) as raised:
        carry(folder, FlashRequest(release, allow_unsigned=case != "unsigned"))
    codes = {
        "full": "stick-full",
        "unsigned": "release-unsigned",
        "no-agent": "release-without-agent",
        "no-stick": "no-stick",
        "foreign": "cannot-write",
    }
    assert raised.value.code == codes[case]
    assert sorted(stick.rglob("*")) == before
