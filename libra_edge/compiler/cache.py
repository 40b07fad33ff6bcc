"""Stage outputs by content: what was computed once from the same inputs is read back.

A key is the SHA-256 of everything an output depends on. An entry carries the hash of its own
bytes; one that does not fit is dropped and computed again, so damage never reaches a release.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from libra_edge.atomic import new_file
from libra_edge.user_cache import cache_folder, make_writable
from libra_edge.version import __version__

# The packages whose output depends on their version.
TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnxsim", "torch", "ziglang")
LARGEST_CACHE_BYTES = 8 * 2**30
_SOURCES = ("compiler", "data", "engines", "evaluation", "parity", "policy")
_HASH_BYTES = 32


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/libra-edge/stages`, or the same under `~/.cache`."""
    return cache_folder("stages")


def tool_versions() -> dict[str, str]:
    """Version of every tool that a release's bytes depend on (`+` is not a name character)."""
    tools = {name: version(name).replace("+", "-") for name in TOOLS}
    return {"libra-edge": __version__, **tools}


def code_sha256() -> str:
    """Hash of this compiler's own sources: a development version has no number to go by."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(path for part in _SOURCES for path in (root / part).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + sha256(file.read_bytes()).encode())
    return digest.hexdigest()


def sha256(content: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(content).hexdigest()


class StageCache:
    """Named byte strings per stage, in one file per key.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = make_writable(root, "--cache")
        self._common = {"code": code_sha256(), **tool_versions()}

    def get_or_make(
        self, stage: str, inputs: Mapping[str, str], make: Callable[[], dict[str, bytes]]
    ) -> tuple[dict[str, bytes], bool]:
        """The stage's output for these inputs (names to hashes), and whether it was there.

        Raises:
            LibraError: the disk is full.
        """
        key = json.dumps({"stage": stage, "inputs": dict(inputs), **self._common}, sort_keys=True)
        path = self.root / f"{stage}-{sha256(key.encode())}"
        found = _read(path)
        if found is not None:
            return found, True
        made = make()
        with new_file(path) as stream:
            stream.write(_pack(made))
        self._prune(path)
        return made, False

    def _prune(self, newest: Path) -> None:
        """Drop the oldest entries beyond the limit, never the one just written."""
        files = [path for path in self.root.iterdir() if path.is_file()]
        entries = [(p.stat().st_mtime_ns, p.stat().st_size, p) for p in files]
        excess = sum(size for _, size, _ in entries) - LARGEST_CACHE_BYTES
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                excess -= size


def _pack(blobs: Mapping[str, bytes]) -> bytes:
    sizes = json.dumps({name: len(content) for name, content in blobs.items()}).encode()
    body = len(sizes).to_bytes(8, "little") + sizes + b"".join(blobs.values())
    return hashlib.sha256(body).digest() + body


def _read(path: Path) -> dict[str, bytes] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        path.unlink()
        return None
    begin = 8 + int.from_bytes(body[:8], "little")
    blobs = {}
    for name, size in json.loads(body[8:begin]).items():
        blobs[name] = body[begin : begin + size]
        begin += size
    return blobs
