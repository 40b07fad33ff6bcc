"""Two clones in other folders, of other users, in other time zones, make the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libra_edge.bundle.members import SBOM, SIGNATURE
from libra_edge.bundle.signing.keys import generate_key
from tests.tiny import write_tiny_checkpoint

ROOT = Path(__file__).parents[1]
MAPPED = ("cli", "calibration", "targets")
SURROUNDINGS = {
    "one": {"USER": "ada", "TZ": "UTC", "LANG": "C.UTF-8", "PYTHONHASHSEED": "1"},
    "a much/deeper folder": {
        "USER": "grace",
        "TZ": "Pacific/Kiritimati",
        "LANG": "C",
        "PYTHONHASHSEED": "77",
    },
}
CHECK = """
import libra_edge, libra_edge.cli, libra_edge.targets, os
for module in (libra_edge, libra_edge.cli, libra_edge.targets):
    assert os.path.realpath(module.__path__[0]).startswith(os.path.realpath(os.getcwd())), module
"""


def clone(folder: Path) -> None:
    """The sources as git has them or would have them, whole and at home in their folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "libra_edge", *MAPPED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for name in MAPPED:
        (folder / "libra_edge" / name).symlink_to(folder / name)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_release(place: Path, surroundings: dict[str, str], umask: int, inputs: Path) -> Path:
    """Compile, sign and pack in a clone of its own; returns the folder of what came out."""
    clone(place / "clone")
    shutil.copytree(inputs, place / "inputs")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "LC_"))},
        **surroundings,
        "LOGNAME": surroundings["USER"],
        "HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "PYTHONPATH": str(place / "clone"),
    }
    out, key = place / "out/release", place / "inputs/robot.key"
    options = ("--form", "unrolled", "--security-epoch", 2, "--sign", key)
    program = ("-m", "libra_edge.cli")
    for words in (
        ("-c", CHECK),
        (*program, "compile", place / "inputs/checkpoint", "--out", out, *options),
        (*program, "pack", out),
    ):
        command = [sys.executable, *map(str, words)]
        subprocess.run(command, cwd=place / "clone", env=environment, check=True, umask=umask)
    (out.parent / "release.build.json").unlink()  # figures of this machine: not the release
    return out.parent


@pytest.mark.long
def test_two_clones(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    write_tiny_checkpoint(inputs / "checkpoint")
    generate_key(inputs / "robot.key", None)
    first, second = (
        tree(make_release(tmp_path / name, surroundings, umask, inputs))
        for umask, (name, surroundings) in zip((0o022, 0o077), SURROUNDINGS.items(), strict=True)
    )
    assert {f"release/{SIGNATURE}", f"release/{SBOM}"} <= first.keys()
    assert {"release.libra", "release.provenance.dsse.json"} <= first.keys()
    assert first == second
    print(f"two clones: {len(first)} files, all the same")
