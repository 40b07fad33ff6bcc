"""The runtime's check of signatures, built once for the tests that hold it against Python's."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from libra_edge.binding import abi
from libra_edge.runtime import build
from tests.runtime.native_build import C_SOURCES, STRICT, TARGET, zig

_SOURCES = (
    *("base64", "canonical", "error", "folder", "json", "manifest", "rules", "sha256"),
    *("signature", "tensor", "trust"),
)


class NativeSignatures:
    """`signature.cc` and `trust.cc` as a library."""

    def __init__(self, folder: Path) -> None:
        out, root = folder / "signatures.so", build.SOURCE_ROOT
        sources = [str(path) for path in build.native_sources() if path.stem in _SOURCES]
        yyjson = root / "third_party/yyjson"
        zig("cc", *TARGET, "-O1", "-fPIC", "-c", str(yyjson / "yyjson.c"), "-o", f"{out}.o")
        (p256,) = build.zig_sources()
        zig("build-obj", str(p256), *TARGET, "-OReleaseSafe", "-fPIC", f"-femit-bin={out}.zig.o")
        zig(
            *("c++", *TARGET, "-std=c++20", "-O1", "-fPIC", "-shared", *STRICT[:2], "-Werror"),
            *(f"-I{root / 'include'}", f"-I{root / 'src'}", "-isystem", str(yyjson)),
            *(str(C_SOURCES / "signature_shim.cc"), *sources),
            *(f"{out}.o", f"{out}.zig.o", "-o", str(out)),
        )
        self._shim = ctypes.CDLL(str(out))
        pair = (ctypes.c_char_p, ctypes.c_uint64)
        self._shim.check_signature.argtypes = (*pair * 3, ctypes.c_int64, *pair)
        self._shim.read_trust.argtypes = (ctypes.c_char_p, *pair)
        self._shim.accepted_epochs.argtypes = (
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.POINTER(ctypes.c_uint64),
            ctypes.c_uint64,
            ctypes.POINTER(ctypes.c_uint8),
        )

    def check(self, manifest: bytes, signature: bytes, trust: bytes, now: int) -> tuple[int, str]:
        """Status, and "id role" or the sentence."""
        text = ctypes.create_string_buffer(abi.ERROR_SIZE)
        sizes = (manifest, len(manifest), signature, len(signature), trust, len(trust))
        status = self._shim.check_signature(*sizes, now, text, len(text))
        return status, text.value.decode(errors="replace")

    def read_trust(self, path: Path) -> tuple[int, str]:
        """Status, and "1" where unsigned releases are allowed, or the sentence."""
        text = ctypes.create_string_buffer(abi.ERROR_SIZE)
        status = self._shim.read_trust(str(path).encode(), text, len(text))
        return status, text.value.decode(errors="replace")

    def accepted(self, releases: Sequence[tuple[str, int]]) -> list[bool]:
        """Which of these (key, epoch) are accepted, one after the other."""
        keys = (ctypes.c_char_p * len(releases))(*(key.encode() for key, _ in releases))
        epochs = (ctypes.c_uint64 * len(releases))(*(epoch for _, epoch in releases))
        accepted = (ctypes.c_uint8 * len(releases))()
        self._shim.accepted_epochs(keys, epochs, len(releases), accepted)
        return [bool(one) for one in accepted]
