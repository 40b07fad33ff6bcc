"""OpenSSF's own tool and we verify each other's signatures (the extra `signing`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libra_edge.bundle.members import SIGNATURE
from libra_edge.bundle.signature import check_release, sign_release
from libra_edge.bundle.signing.keys import generate_key, load_private, load_public
from libra_edge.bundle.signing.trust import Trust
from libra_edge.errors import IntegrityError
from tests.bundle.examples import make_release
from tests.bundle.signed import LAST_DAY, NOW, trusting

TOOL = shutil.which("model_signing") or shutil.which(
    "model_signing", path=str(Path(sys.executable).parent)
)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        TOOL is None, reason="no model_signing on the PATH: pip install 'libra-edge[signing]'"
    ),
]


def tool(*words: object) -> tuple[int, str]:
    run = subprocess.run(
        [str(TOOL), *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    return run.returncode, run.stdout + run.stderr


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    generate_key(tmp_path / "robot.key", None)
    public = load_public(tmp_path / "robot.pub")
    return trusting().with_key(public, "release", LAST_DAY)


def verify(release: Path) -> tuple[int, str]:
    """With everything in the folder looked at, files of git too."""
    signature = ("--signature", release / SIGNATURE, "--no-ignore-git-paths")
    return tool("verify", "key", release, *signature, "--public_key", release.parent / "robot.pub")


def test_their_tool_takes_our_signature_and_sees_every_change(tmp_path: Path, trust: Trust) -> None:
    release = make_release(tmp_path)
    sign_release(release, load_private(tmp_path / "robot.key", None))
    status, said = verify(release)
    assert status == 0, said
    refused = 0
    members = sorted(p for p in release.rglob("*") if p.is_file() and p.name != SIGNATURE)
    for member in [m for m in members if m.stat().st_size][::4]:
        content = member.read_bytes()
        member.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused += verify(release)[0] != 0
        member.write_bytes(content)
    assert refused == len([m for m in members if m.stat().st_size][::4]) > 2
    (release / "engines/extra").write_bytes(b"x")
    assert verify(release)[0] != 0


def test_we_take_theirs_and_see_every_change(tmp_path: Path, trust: Trust) -> None:
    release = make_release(tmp_path)
    out = ("--signature", release / SIGNATURE, "--private_key", tmp_path / "robot.key")
    status, said = tool("sign", "key", release, *out)
    assert status == 0, said
    assert check_release(release, trust, NOW)[1].key_id == trust.keys[0].id
    signature = (release / SIGNATURE).read_bytes()
    for change in (signature[:-1], signature.replace(b"A", b"B", 1), signature + b"x"):
        (release / SIGNATURE).write_bytes(change)
        with pytest.raises(IntegrityError):
            check_release(release, trust, NOW)


def test_what_their_tool_passes_over_we_refuse(tmp_path: Path, trust: Trust) -> None:
    """It skips files of git by default; a release holds its members and nothing else."""
    release = make_release(tmp_path)
    sign_release(release, load_private(tmp_path / "robot.key", None))
    (release / ".git").mkdir()
    (release / ".git/hook").write_bytes(b"\x7fELF")
    signature = ("--signature", release / SIGNATURE)
    public = ("--public_key", tmp_path / "robot.pub")
    assert tool("verify", "key", release, *signature, *public)[0] == 0
    with pytest.raises(IntegrityError, match="member-unexpected"):
        check_release(release, trust, NOW)


def test_they_refuse_our_signature_by_another_key(tmp_path: Path, trust: Trust) -> None:
    release = make_release(tmp_path)
    generate_key(tmp_path / "other.key", None)
    sign_release(release, load_private(tmp_path / "other.key", None))
    assert verify(release)[0] != 0
