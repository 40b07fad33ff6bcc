"""What `libra-agent` does, as its contract says, in a few lines of Python: for fast tests alone.

Written out of a release's member `lib/libra-agent`. Golden actions that begin with BAD or end with
1000 fail the self-test; `<root>/slow` holds seconds to sleep before an installation ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import struct
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, BinaryIO

GOLDEN = "golden/actions.npy"


class Refused(Exception):
    def __init__(self, code: str, fact: str, status: int = 3) -> None:
        super().__init__(code, fact, status)


def refuse(code: str, fact: str, status: int = 3) -> None:
    raise Refused(code, fact, status)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Robot:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.file = root / "state.json"
        self.state: dict[str, Any] = {"schema": 1, "slots": {}, "previous": None}
        self.state |= {"pending_since_unix_s": None, "deadline": None, "epochs": {}}
        if self.file.exists():
            self.state = json.loads(self.file.read_text())
        self.expire()

    def save(self) -> None:
        new = self.root / "state.json.new"
        new.write_text(json.dumps(self.state))
        new.replace(self.file)

    @property
    def active(self) -> str | None:
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    @property
    def inactive(self) -> str:
        return "b" if self.active == "a" else "a"

    def slot(self, name: str) -> Path:
        return self.root / "slots" / name

    def expire(self) -> None:
        deadline = self.state.get("deadline")
        if deadline and time.time() >= deadline:
            self.state["slots"][self.active]["state"] = "bad"
            self.switch(self.state["previous"])

    def switch(self, name: str | None) -> None:
        link = self.root / "current"
        if name is None:
            link.unlink()
        else:
            new = self.root / "current.new"
            new.unlink(missing_ok=True)
            new.symlink_to(f"slots/{name}")
            new.replace(link)
        self.state |= {"pending_since_unix_s": None, "deadline": None}
        self.save()

    def status(self) -> dict[str, Any]:
        slots = {}
        for name, entry in self.state["slots"].items():
            manifest = json.loads((self.slot(name) / "manifest.json").read_text())
            release = {"release": manifest["name"], "recipe": manifest["recipe"]}
            slots[name] = {**entry, **release, "target": manifest["target"]}
        return {
            "root": str(self.root),
            "active": self.active,
            "slots": {name: slots.get(name) for name in "ab"},
            "health_deadline_unix_s": self.state["deadline"],
            "agent_version": "stand-in",
            "free_bytes": shutil.disk_usage(self.root).free,
            "trust": [],
            "allow_unsigned": True,
        }

    def held(self, digest: str) -> Path | None:
        for name in self.state["slots"]:
            members = json.loads((self.slot(name) / "manifest.json").read_text())["members"]
            for member, facts in members.items():
                if facts["sha256"] == digest == sha256(self.slot(name) / member):
                    return self.slot(name) / member
        part = self.incoming / f"{digest}.part"
        return part if part.exists() and sha256(part) == digest else None

    def missing(self, source: BinaryIO) -> dict[str, Any]:
        members = json.load(source)["members"]
        wanted = []
        for name, facts in sorted(members.items()):
            if self.held(facts["sha256"]) is None:
                part = self.incoming / f"{facts['sha256']}.part"
                have = part.stat().st_size if part.exists() else 0
                if have >= facts["size_bytes"]:
                    have = 0
                row = {"name": name, "sha256": facts["sha256"], "have_bytes": have}
                wanted.append({**row, "size_bytes": facts["size_bytes"]})
        needs = sum(facts["size_bytes"] for facts in members.values())
        return {
            "members": wanted,
            "needs_bytes": needs,
            "free_bytes": shutil.disk_usage(self.root).free,
        }

    def install(self, source: BinaryIO, allow_unsigned: bool) -> dict[str, Any]:
        if source.readline() != b"libra-install 1\n":
            refuse("stream-invalid", "No such stream.", 2)
        head = json.loads(source.readline())
        manifest = source.read(head["manifest_bytes"])
        signature = source.read(head["signature_bytes"])
        if not signature and not allow_unsigned:
            refuse("unsigned", "The release has no signature.")
        identity = hashlib.sha256(manifest).hexdigest()
        for name, entry in self.state["slots"].items():
            if entry["manifest_sha256"] == identity and entry["state"] != "bad":
                already = "active" if name == self.active else "installed"
                return {"slot": name, "already": already}
        self.incoming.mkdir(parents=True, exist_ok=True)
        for member in head["members"]:
            part = self.incoming / f"{member['sha256']}.part"
            with part.open("ab") as sink:
                sink.truncate(member["offset"])
                left = member["bytes"]
                while left:
                    piece = source.read1(min(left, 65536))  # type: ignore[attr-defined]
                    if not piece:
                        refuse("stream-ended", f"The stream ends inside {member['name']}.", 1)
                    sink.write(piece)
                    sink.flush()
                    left -= len(piece)
            if sha256(part) != member["sha256"]:
                part.unlink()
                refuse("member-changed", f"{member['name']} is not what the manifest says.")
        if (self.root / "slow").exists():
            time.sleep(float((self.root / "slow").read_text()))
        return self.fill(manifest, signature, identity)

    def unpack(self, file: Path, allow_unsigned: bool) -> dict[str, Any]:
        with tarfile.open(file) as archive:
            data = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        manifest = data.pop("manifest.json")
        members = [
            {"sha256": hashlib.sha256(d).hexdigest(), "offset": 0, "bytes": len(d), "name": n}
            for n, d in data.items()
        ]
        sizes = {"manifest_bytes": len(manifest), "signature_bytes": 0}
        head = json.dumps({**sizes, "members": members}).encode() + b"\n"
        stream = b"libra-install 1\n" + head + manifest + b"".join(data.values())
        return self.install(io.BytesIO(stream), allow_unsigned)

    def fill(self, manifest: bytes, signature: bytes, identity: str) -> dict[str, Any]:
        name = self.inactive
        new = self.slot(f"{name}.new")
        shutil.rmtree(new, ignore_errors=True)
        for member, facts in json.loads(manifest)["members"].items():
            held = self.held(facts["sha256"])
            if held is None:
                refuse("member-missing", f"{member} is neither here nor in the stream.")
            target = new / member
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(held), target)
            target.chmod(0o755 if member.startswith("lib/") else 0o644)
        (new / "manifest.json").write_bytes(manifest)
        if signature:
            (new / "model.sig").write_bytes(signature)
        self.state["slots"].pop(name, None)
        self.save()
        shutil.rmtree(self.slot(name), ignore_errors=True)
        new.rename(self.slot(name))
        facts = {"state": "installed", "manifest_sha256": identity, "key_id": None}
        self.state["slots"][name] = {**facts, "security_epoch": 0, "installed_at_unix_s": 0}
        self.save()
        shutil.rmtree(self.incoming, ignore_errors=True)
        return {"slot": name}

    def activate(self, name: str, health_timeout_s: int) -> dict[str, Any]:
        actions = (self.slot(name) / GOLDEN).read_bytes()
        if actions.startswith(b"BAD") or actions.endswith(struct.pack("<f", 1000)):
            self.state["slots"][name]["state"] = "bad"
            self.save()
            refuse("self-test-failed", f"Slot {name}: the golden vectors do not come out.")
        self.state["previous"] = self.active
        self.state["slots"][name]["state"] = "active"
        self.switch(name)
        self.state["deadline"] = int(time.time()) + health_timeout_s
        self.save()
        return {"slot": name, "health_deadline_unix_s": self.state["deadline"]}

    def mark(self, word: str) -> dict[str, Any]:
        if self.active is None:
            refuse("nothing-active", "Nothing is active.")
        self.state["slots"][self.active]["state"] = word
        if word == "bad":
            self.switch(self.state["previous"])
        self.state |= {"pending_since_unix_s": None, "deadline": None}
        self.save()
        return {"slot": self.active}

    def rollback(self) -> dict[str, Any]:
        previous = self.state["previous"]
        if previous is None or previous not in self.state["slots"]:
            refuse("no-previous", "There is no slot to go back to.")
        self.state["previous"] = self.active
        self.switch(previous)
        return {"slot": previous}


def option(words: list[str], name: str, default: str) -> str:
    return words[words.index(name) + 1] if name in words else default


def run(words: list[str]) -> dict[str, Any]:
    root = Path(option(words, "--root", "/opt/libra"))
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        if words[0] not in ("status", "missing"):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refuse("busy", "Another agent works on this robot.", 5)
        robot = Robot(root)
        match words[0]:
            case "status":
                return robot.status()
            case "missing":
                return robot.missing(sys.stdin.buffer)
            case "install" if words[1] != "-":
                return robot.unpack(Path(words[1]), "--allow-unsigned" in words)
            case "install":
                return robot.install(sys.stdin.buffer, "--allow-unsigned" in words)
            case "activate":
                timeout_s = int(option(words, "--health-timeout-s", "600"))
                return robot.activate(option(words, "--slot", robot.inactive), timeout_s)
            case "mark-good":
                return robot.mark("good")
            case "mark-bad":
                return robot.mark("bad")
            case "rollback":
                return robot.rollback()
    refuse("usage", f"No command {words[0]}.", 2)
    return {}


if __name__ == "__main__":
    try:
        said, status = {"ok": True, "command": sys.argv[1], **run(sys.argv[1:])}, 0
    except Refused as error:
        code, fact, status = error.args
        said = {"ok": False, "command": sys.argv[1], "code": code, "fact": fact}
        said["remedy"] = "See the contract."
    print(json.dumps(said))
    sys.exit(status)
