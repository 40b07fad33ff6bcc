"""`make demo-flash`: a robot behind a local sshd is flashed, broken, rolled back, and a fleet too.

Runs the commands a technician would run and shows each one, in a folder that is removed at the end.
The first argument is a release to take; without one the shipped checkpoint is compiled.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from libra_edge.bundle.manifest import ReleaseFacts
from libra_edge.bundle.members import AGENT
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import open_release
from libra_edge.errors import LibraError

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/metaworld"
RELEASE = ROOT / "out/metaworld-demo"
GOLDEN = "golden/actions.npy"
SSH = ("-F", "ssh_config")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def show(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def libra_edge(*words: str, status: int = 0) -> None:
    """Run one command, visibly; leave if it ends in another way than it should."""
    shown = textwrap.wrap(
        f"$ libra-edge {shlex.join(words)}",
        76,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    print(" \\\n".join(shown), flush=True)
    found = subprocess.run([sys.executable, "-m", "libra_edge.cli", *words]).returncode
    if found != status:
        sys.exit(f"demo: the command left with {found}, not {status}")
    if status:
        print(f"(exit status {status}, as it should be)", flush=True)


def compiled(given: Path | None) -> Path:
    """The release to flash: the one given, or the demo policy's, compiled if need be."""
    if given is not None:
        return given.resolve()
    with contextlib.suppress(LibraError):
        if AGENT in open_release(RELEASE).manifest.members:
            return RELEASE
    show("Compile a trained checkpoint into a release")
    words = ("--data", str(DEMO / "heldout"), "--out", str(RELEASE), "--force")
    libra_edge("compile", str(DEMO / "checkpoint"), *words)
    return RELEASE


def variant(source: Path, name: str, *, broken: bool = False) -> None:
    """The same policy under another name; broken: its golden vectors do not come out."""
    release = open_release(source)
    body = release.manifest.model_dump(mode="json")
    del body["members"]
    files: dict[str, Path | bytes] = {n: release.member(n) for n in release.manifest.members}
    if broken:
        actions = release.member(GOLDEN).read_bytes()
        files[GOLDEN] = actions[:-4] + struct.pack("<f", 1000.0)
    write_release(Path(name), ReleaseFacts.model_validate({**body, "name": name}), files)


@contextlib.contextmanager
def robot() -> Iterator[None]:
    """An sshd of our own on loopback, and `ssh_config` to reach it as `robot`."""
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", name], check=True)
    shutil.copy("client.pub", "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here, user = Path.cwd(), getpass.getuser()
    key = " ".join(Path("host.pub").read_text().split()[:2])
    Path("known").write_text(f"[127.0.0.1]:{port} {key}\n")
    Path("ssh_config").write_text(
        f"Host robot\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {here}/client\n  IdentitiesOnly yes\n  UserKnownHostsFile {here}/known\n"
    )
    Path("sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nPidFile none\n"
        f"AuthorizedKeysFile {here}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges to
    with Path("sshd.log").open("wb") as log:
        server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", f"{here}/sshd_config"], stderr=log)
        try:
            wait_for(port, server)
            yield
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Until sshd listens."""
    for _ in range(100):
        if server.poll() is not None:
            sys.exit(f"demo: sshd does not start here: {Path('sshd.log').read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    sys.exit("demo: sshd does not listen")


def sign(names: tuple[str, ...], robots: tuple[str, ...]) -> None:
    """Sign the releases and have the robots trust the key."""
    show("A key, whom the robots trust, and the releases signed with it")
    libra_edge("keys", "generate", "demo.key")
    libra_edge("keys", "trust", "add", "trust.json", "demo.pub")
    for name in names:
        libra_edge("sign", name, "--key", "demo.key")
    for folder in robots:  # an operator brings it, once
        Path(folder).mkdir()
        shutil.copy("trust.json", folder)


def one_robot(arm: tuple[str, ...]) -> None:
    """The first release, a broken one, a second one, and back."""
    show("What would happen, before anything does")
    libra_edge("flash", "first", *arm, "--dry-run")
    show("The first release: everything crosses, its agent first")
    libra_edge("flash", "first", *arm, "--mark-good")
    libra_edge("status", *arm)
    show("A broken release: its self-test fails on the robot, which runs on as before")
    libra_edge("flash", "broken", *arm, status=3)
    libra_edge("status", *arm)
    show("A second release with the same members: nothing but its manifest crosses")
    libra_edge("flash", "second", *arm, "--mark-good")
    show("Back by hand")
    libra_edge("rollback", *arm)
    libra_edge("flash", "first", *arm)


def fleet() -> None:
    """Two robots, a canary first; a broken release stops with it."""
    hosts = "".join(
        f"    arm-{n}: {{ansible_host: robot, libra_root: {Path.cwd()}/arm-{n}}}\n" for n in (1, 2)
    )
    Path("robots.yml").write_text(f"all:\n  hosts:\n{hosts}")
    words = ("--inventory", "robots.yml", *SSH, "--mark-good")
    show("A fleet of two, the canary first")
    libra_edge("flash", "first", *words)
    show("A broken release ends with the canary; the other robot never sees it")
    libra_edge("flash", "broken", *words, status=1)


def main() -> None:
    """Everything, in a folder of its own."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        sys.exit(
            "demo: there is no sshd here to be the robot.\n"
            "Debian, Ubuntu: apt-get install openssh-server (it starts one on port 22, too)"
        )
    source = compiled(Path(sys.argv[1]) if sys.argv[1:] else None)
    os.environ["COLUMNS"] = str(min(80, shutil.get_terminal_size().columns))
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        os.chdir(folder)
        names = ("first", "second", "broken")
        for name in names:
            variant(source, name, broken=name == "broken")
        with robot():
            sign(names, ("arm", "arm-1", "arm-2"))
            one_robot(("robot", *SSH, "--root", f"{folder}/arm"))
            fleet()
        os.chdir(ROOT)
    show("What you have")
    print("Robots that ran one release or the other at every moment; nothing is left.")
    print("Yours: docs/how-to/flash-a-robot.md, docs/how-to/flash-a-fleet.md")


if __name__ == "__main__":
    main()
