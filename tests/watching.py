"""What a program does besides its work: names it looks up, files it writes, threads it starts.

`watch` preloads a library, which is quick and needs nothing; `trace` asks strace, which sees every
system call of every process, those that load no library included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.runtime import native_build

ROOT = Path(__file__).parents[1]
TELEMETRY = ("onnxruntime", "mat-", "libmat")
_CALLS = "trace=open,openat,creat,?mkdir,mkdirat,?rename,renameat,renameat2,?link,linkat,"
_CALLS += "?symlink,symlinkat,connect,sendto,clone3"
_WRITES = re.compile(
    r"^\d+ +(?:(?:open|openat)\(.*O_(?:WRONLY|RDWR|CREAT)|creat\(|mkdir|rename|link|symlink)"
)
# The folder that a path starts from, where the call names one.
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')


@dataclass
class Seen:
    """Names looked up, connections, paths written to, and threads by the libraries behind them."""

    look_ups: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    printed: str = ""

    def outside(self, *folders: Path) -> set[Path]:
        """What was written that lies in none of these folders, devices apart."""
        named = [Path(os.path.realpath(folder)) for folder in folders]
        found = {Path(os.path.realpath(path.parent)) / path.name for path in self.written}
        devices = {Path("/dev/null"), Path("/dev/tty")}
        return {p for p in found - devices if not any(p.is_relative_to(f) for f in named)}


def build_watcher(folder: Path) -> Path:
    """Compile the library to preload."""
    out = folder / "watcher.so"
    native_build.zig(
        *("cc", *native_build.TARGET, "-std=c11", "-O1", *native_build.STRICT, "-fPIC", "-shared"),
        *(str(native_build.C_SOURCES / "watcher.c"), "-o", str(out)),
    )
    return out


def bare(folder: Path, **extra: str) -> dict[str, str]:
    """An environment with a home and a folder for temporary files of its own.

    It is bare: ONNX Runtime keeps quiet where it sees that it is in a CI job.
    """
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return {
        **{"PATH": os.environ["PATH"], "HOME": str(folder / "home")},
        **{"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        **{"PYTHONDONTWRITEBYTECODE": "1"},
        **extra,
    }


def watch(watcher: Path, folder: Path, *command: str, **extra: str) -> Seen:
    """Run a command with the library preloaded; it has to end well."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    seen = Seen()
    environment = bare(folder, LD_PRELOAD=str(watcher), WATCHER_LOG=str(log), **extra)
    seen.printed = _run(command, environment)
    kinds = {"look-up": seen.look_ups, "connect": seen.connections}
    for line in log.read_text().splitlines() if log.exists() else []:
        what, _, detail = line.partition(" ")
        if what == "write":
            seen.written.append(Path(detail))
        else:
            kinds.get(what, seen.threads).append(detail.strip())
    return seen


def can_trace() -> bool:
    """Whether there is an strace that may look at a process."""
    program = shutil.which("strace")
    if program is None:
        return False
    return subprocess.run([program, "-qq", "-o", "/dev/null", "true"]).returncode == 0


def trace(folder: Path, *command: str, **extra: str) -> Seen:
    """Run a command under strace, without a network where that can be had."""
    log = folder / "trace"
    unshare = ["unshare", "-rn"]
    alone = shutil.which("unshare") and not subprocess.run([*unshare, "true"]).returncode
    strace = ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", str(log), "-e", _CALLS]
    seen = Seen()
    words = [*(unshare if alone else ()), *strace, *command]
    seen.printed = _run(words, bare(folder, **extra))
    for line in log.read_text(errors="replace").splitlines():
        if "htons(53)" in line:
            seen.look_ups.append(line)
        elif re.search(r"(?:connect|sendto)\(.*AF_INET", line):
            seen.connections.append(line)
        elif "CLONE_THREAD" in line:
            seen.threads.append(line)
        elif _WRITES.match(line) and not re.search(r"= -1 E(?:NOENT|EXIST)", line):
            folder, path = _PATH.findall(line)[-1]
            seen.written.append(Path(folder or ROOT, path))
    return seen


def _run(command: Sequence[str], environment: dict[str, str]) -> str:
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
