"""The scripts that hand releases on from Mender and RAUC, as these call them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from libra_edge.bundle.pack import pack_release
from libra_edge.bundle.verify import open_release
from tests.deploy.robots import GOLDEN, current, write

FLASH = Path(__file__).parents[2] / "examples/flash"


def artifact(folder: Path, release: Path) -> Path:
    """A working folder as Mender lays it out."""
    work = folder / f"work-{release.name}"
    for name in ("files", "tmp"):
        (work / name).mkdir(parents=True)
    pack_release(release, work / "files" / f"{release.name}.libra")
    shutil.copyfile(open_release(release).member("lib/libra-agent"), work / "files/libra-agent")
    return work


def call(script: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LIBRA_INSTALL": "--allow-unsigned", **variables}
    command = [FLASH / script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def mender(work: Path, root: Path, *states: str) -> list[int]:
    where = str(root)
    return [
        call("mender/libra-release", state, work, LIBRA_ROOT=where).returncode for state in states
    ]


def test_mender_installs_commits_and_rolls_back(tmp_path: Path) -> None:
    root = tmp_path / "robot"
    first = artifact(tmp_path, write(tmp_path))
    assert mender(first, root, "ArtifactInstall", "ArtifactCommit") == [0, 0]
    assert current(root) == "example"
    second = artifact(tmp_path, write(tmp_path, "second"))
    assert mender(second, root, "ArtifactInstall") == [0]
    assert current(root) == "second"
    assert mender(second, root, "ArtifactRollback", "ArtifactFailure", "Cleanup") == [0, 0, 0]
    assert current(root) == "example"


def test_mender_leaves_what_runs_alone_when_an_installation_fails(tmp_path: Path) -> None:
    root = tmp_path / "robot"
    mender(artifact(tmp_path, write(tmp_path)), root, "ArtifactInstall", "ArtifactCommit")
    broken = artifact(tmp_path, write(tmp_path, "broken", members={GOLDEN: b"BAD"}))
    failed, rolled_back = mender(broken, root, "ArtifactInstall", "ArtifactRollback")
    assert failed != 0
    assert rolled_back == 0
    assert current(root) == "example"


def test_what_mender_asks() -> None:
    for state, answer in (("NeedsArtifactReboot", "No"), ("SupportsRollback", "Yes")):
        assert call("mender/libra-release", state).stdout.strip() == answer
    assert call("mender/libra-release", "Download", "/nowhere").returncode == 0


@pytest.mark.parametrize("count", [0, 2])
def test_an_artifact_holds_one_release(tmp_path: Path, count: int) -> None:
    (tmp_path / "work/files").mkdir(parents=True)
    for n in range(count):
        (tmp_path / f"work/files/{n}.libra").write_text("")
    assert mender(tmp_path / "work", tmp_path / "robot", "ArtifactInstall") == [1]


def test_rauc(tmp_path: Path) -> None:
    root = tmp_path / "robot"
    mender(artifact(tmp_path, write(tmp_path)), root, "ArtifactInstall", "ArtifactCommit")
    pack_release(write(tmp_path, "second"), tmp_path / "second.libra")
    words = {"LIBRA_ROOT": str(root), "RAUC_IMAGE_NAME": str(tmp_path / "second.libra")}
    assert call("rauc/hook", "slot-install", **words).returncode == 0
    assert current(root) == "second"
    assert call("rauc/hook", "slot-post-install", **words).returncode == 1
