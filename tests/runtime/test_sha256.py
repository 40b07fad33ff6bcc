from __future__ import annotations

import ctypes
import hashlib
import random
from ctypes import c_char_p, c_uint64

import pytest

from libra_edge.runtime import build
from tests.runtime.native_build import C_SOURCES, STRICT, TARGET, zig


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    out, sources = tmp_path_factory.mktemp("sha256") / "shim.so", build.SOURCE_ROOT / "src"
    zig(
        *("c++", *TARGET, "-std=c++20", "-O2", "-fPIC", "-shared", *STRICT, f"-I{sources}"),
        *(str(C_SOURCES / "sha256_shim.cc"), str(sources / "release/sha256.cc"), "-o", str(out)),
    )
    shim = ctypes.CDLL(str(out))
    shim.sha256_in_pieces.argtypes = (c_char_p, c_uint64, c_uint64, c_char_p)
    return shim


def digest(shim: ctypes.CDLL, message: bytes, piece: int = 4096) -> str:
    result = ctypes.create_string_buffer(32)
    shim.sha256_in_pieces(message, len(message), piece, result)
    return result.raw.hex()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
)
def test_nist_vectors(shim: ctypes.CDLL, message: bytes, expected: str) -> None:
    assert digest(shim, message) == expected


def test_every_length_around_the_blocks(shim: ctypes.CDLL) -> None:
    rng = random.Random(1)
    for length in range(200):
        message = rng.randbytes(length)
        piece = rng.choice([1, 7, 55, 56, 63, 64, 65, 4096])
        assert digest(shim, message, piece) == hashlib.sha256(message).hexdigest(), length
