"""The readers of manifest, signature, trust file and packed release on a million changed inputs.

Under AddressSanitizer and UBSan. With a clang that has libFuzzer it looks for new paths, too;
with g++ alone (Debian: g++) inputs are drawn from the corpus, which is made here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from libra_edge.bundle.members import MANIFEST, SIGNATURE
from libra_edge.bundle.pack import pack_release
from libra_edge.runtime import build
from libra_edge.version import __version__
from tests.bundle.signed import new_key, runnable_release, trusting
from tests.runtime import native_build
from tests.runtime.native_build import C_SOURCES, TARGET, gxx, zig

pytestmark = [pytest.mark.long, pytest.mark.sanitize]
INPUTS = 1_000_000
FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
FLAGS += ["-fno-sanitize-recover=all"]
AGENT = ("answer", "files", "source")


def corpus(folder: Path) -> list[Path]:
    """One good input for each reader."""
    key = new_key()
    release = runnable_release(folder, key, epoch=3)
    pack_release(release, folder / "release.libra")
    manifest, signature = ((release / name).read_bytes() for name in (MANIFEST, SIGNATURE))
    trust = trusting(key, new_key(2)).to_bytes()
    signed = b"".join(len(part).to_bytes(4, "big") + part for part in (trust, manifest, signature))
    inputs = [manifest, trust, signed, (folder / "release.libra").read_bytes()]
    files = []
    for number, data in enumerate(inputs):
        files.append(folder / f"seed-{number}")
        files[-1].write_bytes(bytes([number]) + data)
    return files


def compiled(out: Path, compiler: str, flags: list[str], *drivers: str) -> Path:
    root, yyjson = build.SOURCE_ROOT, build.SOURCE_ROOT / "third_party/yyjson"
    c_compiler = {"g++": "gcc", "clang++": "clang"}[compiler]
    gxx(c_compiler, *flags, "-c", str(yyjson / "yyjson.c"), "-o", f"{out}.json.o")
    (p256,) = build.zig_sources()
    zig_flags = ("-OReleaseSafe", "-fPIC", "-fno-stack-check")  # g++ links no runtime of Zig's
    zig("build-obj", str(p256), *TARGET, *zig_flags, f"-femit-bin={out}.zig.o")
    sources = [root / name for name in build._OF_THE_AGENT]
    sources += [root / f"agent/{name}.cc" for name in AGENT]
    gxx(
        *(compiler, "-std=c++20", *flags, "-ffp-contract=off", f'-DLE_VERSION="{__version__}"'),
        *(f"-I{root / 'include'}", f"-I{root / 'src'}", f"-I{root}", "-isystem", str(yyjson)),
        *(str(C_SOURCES / "fuzz_readers.cc"), *drivers, *map(str, sources)),
        *(f"{out}.json.o", f"{out}.zig.o", "-o", str(out)),
    )
    return out


def run(command: list[str]) -> str:
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def test_changed_inputs(tmp_path: Path) -> None:
    if not native_build.has_gxx():
        pytest.skip("g++ is not installed")
    program = compiled(tmp_path / "fuzz", "g++", FLAGS, str(C_SOURCES / "fuzz_driver.cc"))
    files = [str(path) for path in corpus(tmp_path / "corpus")]
    said = run([str(program), str(INPUTS), "17", *files])
    assert f"{INPUTS} inputs tried" in said
    print(f"readers: {INPUTS} inputs tried, {INPUTS} survived")


def test_with_libfuzzer(tmp_path: Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("clang++ is not installed (Debian: clang)")
    flags = [*FLAGS, "-fsanitize=fuzzer-no-link"]
    program = compiled(tmp_path / "fuzz", "clang++", flags, "-fsanitize=fuzzer")
    (tmp_path / "seeds").mkdir()
    for path in corpus(tmp_path / "corpus"):
        shutil.copy(path, tmp_path / "seeds")
    words = [f"-runs={INPUTS}", "-seed=17", "-max_len=65536", f"-artifact_prefix={tmp_path}/"]
    run([str(program), *words, str(tmp_path / "seeds")])
    print(f"readers: {INPUTS} inputs of libFuzzer tried, {INPUTS} survived")
