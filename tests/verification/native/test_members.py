"""Native members by their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libra_edge.bundle.verify import Release, open_release
from libra_edge.errors import LibraError
from libra_edge.parity.gates import Check
from libra_edge.verification.native import members
from tests.runtime import tiny_release


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    monkeypatch.setattr(members, "native_library", lambda *_, **__: library.read_bytes())


def compared(release: Path, tmp_path: Path) -> list[Check]:
    return members.compare_members(open_release(release), tmp_path / "cache", print)


def altered(release: Path, out: Path, name: str, **changes: Any) -> Path:
    copied = tiny_release.link_release(release, out)
    tiny_release.replace(copied / name, (copied / name).read_bytes() + b"\n")
    content = tiny_release.manifest()
    content["tools"] |= {"libra-edge": members.__version__} | changes
    tiny_release.seal(copied, content)
    return copied


@pytest.mark.usefixtures("native")
def test_our_own_members_pass(release: Path, tmp_path: Path) -> None:
    assert [check.verdict for check in compared(release, tmp_path)] == ["pass"] * 3


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(
    "name", ["lib/liblibra_edge.so", "lib/libonnxruntime.so", "include/libra_edge.h"]
)
def test_others_fail_and_say_so(release: Path, tmp_path: Path, name: str) -> None:
    for maker, verdict in ((members.__version__, "fail"), ("0.0.9", "not measured")):
        changed = altered(release, tmp_path / maker, name, **{"libra-edge": maker})
        checks = {check.metric: check for check in compared(changed, tmp_path)}
        check = checks.pop(f"{name} is the same")
        assert check.verdict == verdict
        assert "not this toolkit's" in check.note
        assert {other.verdict for other in checks.values()} == {"pass"}


def test_what_cannot_be_made_here_is_not_measured(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> bytes:
        raise LibraError("native-build-failed", "There is no room.", "Make room.")

    monkeypatch.setattr(members, "native_library", cannot)
    first = compared(release, tmp_path)[0]
    assert (first.verdict, "There is no room." in first.note) == ("not measured", True)
    monkeypatch.setattr(members.importlib.util, "find_spec", lambda name: None)
    first = compared(release, tmp_path)[0]
    assert (first.verdict, "compiler is not installed" in first.note) == ("not measured", True)


def test_an_earlier_interface_is_not_measured(release: Path) -> None:
    manifest = Release(release, open_release(release).manifest).manifest
    former = manifest.members["include/libra_edge.h"].model_copy(
        update={"sha256": next(iter(members.FORMER_HEADERS))}
    )
    changed = {**manifest.members, "include/libra_edge.h": former}
    tools = {**manifest.tools, "libra-edge": members.__version__}
    assert not members.is_former(manifest.model_copy(update={"tools": tools}))
    assert members.is_former(manifest.model_copy(update={"members": changed, "tools": tools}))
