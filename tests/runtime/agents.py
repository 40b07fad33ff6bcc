"""The real `libra-agent` for tests: built once per source state, driven as a robot's shell does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.atomic import new_file
from libra_edge.runtime import build
from libra_edge.runtime.libraries import native_agent
from tests.runtime import tiny_release

UNSIGNED = "--allow-unsigned"


def cached_agent() -> Path:
    """The agent of the present sources; compiled only when they have changed."""
    folder = build.default_cache_dir().parent / "tests"
    kept = folder / build.source_hash() / build.AGENT_NAME
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with new_file(kept) as stream:
            stream.write(native_agent("x86_64-linux-gnu", "2.35"))
        kept.chmod(0o755)
    return kept


@dataclass(frozen=True)
class Robot:
    """A robot's folder and its agent."""

    agent: Path
    root: Path

    def run(
        self, *words: str, feed: bytes = b"", inject: str = "", trace: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One command; `inject` is strace's fault, `trace` where its list of calls goes."""
        command = [str(self.agent), *words, "--root", str(self.root), "--json"]
        if inject or trace is not None:
            watch = ["strace", "-o", str(trace or os.devnull)]
            command = [*watch, *(["-e", f"inject={inject}"] if inject else []), *command]
        return subprocess.run(command, input=feed, capture_output=True, timeout=60)

    def ask(self, *words: str, feed: bytes = b"") -> dict[str, Any]:
        """The answer of a command that must succeed."""
        done = self.run(*words, feed=feed)
        said: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode, said["ok"]) == (0, True), (done.stdout, done.stderr)
        return said

    def refused(self, *words: str, feed: bytes = b"") -> tuple[int, str]:
        """Exit status and code of a command that must not succeed."""
        done = self.run(*words, feed=feed)
        said = json.loads(done.stdout)
        assert not said["ok"]
        assert said["fact"]
        assert said["remedy"]
        return done.returncode, said["code"]

    @property
    def current(self) -> str | None:
        """The name of the slot that runs."""
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    def copy(self, to: Path) -> Robot:
        """The same robot again; members are shared, as nobody writes into them."""
        shutil.copytree(self.root, to, symlinks=True, copy_function=_link)
        return Robot(self.agent, to)


def _link(source: str, target: str) -> None:
    if source.endswith(("state.json", "lock")):
        shutil.copy(source, target)
    else:
        os.link(source, target, follow_symlinks=False)


def stream(release: Path, offsets: dict[str, int] | None = None) -> bytes:
    """What `install -` reads, of a whole release, or from these offsets on."""
    manifest = (release / "manifest.json").read_bytes()
    members = json.loads(manifest)["members"]
    wanted = dict.fromkeys(members, 0) if offsets is None else offsets
    rows, content = [], b""
    for name, offset in wanted.items():
        rest = (release / name).read_bytes()[offset:]
        facts = {"name": name, "sha256": members[name]["sha256"]}
        rows.append({**facts, "offset": offset, "bytes": len(rest)})
        content += rest
    head = {"manifest_bytes": len(manifest), "signature_bytes": 0, "members": rows}
    return b"libra-install 1\n" + json.dumps(head).encode() + b"\n" + manifest + content


def light(release: Path, name: str, into: Path) -> Path:
    """A release that is installed in milliseconds; nothing opens it."""
    path = tiny_release.link_release(release, into)
    for library in ("libonnxruntime.so", "liblibra_edge.so"):
        tiny_release.replace(path / "lib" / library, name.encode() * 1000)
    tiny_release.seal(path, {**tiny_release.manifest(), "name": name})
    return path


def started(robot: Robot, release: Path) -> None:
    """A robot that runs a release which cannot be tested."""
    slot = robot.ask("install", str(release), UNSIGNED)["slot"]
    link = robot.root / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"slots/{slot}")
    robot.ask("mark-good")


def note(robot: Robot, **facts: object) -> None:
    path = robot.root / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def calls_of(trace: Path) -> list[tuple[str, int]]:
    """Every system call of a trace as (name, how many of that name so far)."""
    counts: dict[str, int] = {}
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if name := re.match(r"(\w+)\(", line):
            counts[name[1]] = counts.get(name[1], 0) + 1
            found.append((name[1], counts[name[1]]))
    return found
