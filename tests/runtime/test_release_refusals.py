"""What is not a release, and the words and exit codes of refusing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.binding.library import raise_status
from libra_edge.binding.policy import Policy
from libra_edge.errors import ExitCode, IncompatibleError, InputError, IntegrityError, LibraError
from tests.runtime import tiny_release as tiny
from tests.runtime.test_release import LIBRARY, PLANNER, Copy, edit, read, try_open


def test_no_release_at_all(library: Path, tmp_path: Path) -> None:
    assert try_open(tmp_path / "nowhere", library)[0] == abi.INVALID_ARGUMENT
    assert try_open(tmp_path, library) == (abi.INTEGRITY, "manifest.json is missing.")
    for name, text in (("file", "not a directory"), ("x.libra", "unpack it first")):
        (tmp_path / name).touch()
        status, found = try_open(tmp_path / name, library)
        assert status == abi.INVALID_ARGUMENT
        assert text in found
        with pytest.raises(IntegrityError, match="container-invalid"):
            Policy(tmp_path / name)
    with pytest.raises(InputError) as caught:
        Policy(tmp_path)
    assert caught.value.code == "not-a-release"


def test_a_symbolic_link_to_a_release_opens(release: Path, library: Path, tmp_path: Path) -> None:
    (tmp_path / "active").symlink_to(release)
    assert try_open(tmp_path / "active", library) == (abi.OK, "")


@pytest.mark.parametrize(
    ("path", "value", "code", "exit_code"),
    [
        (("runtime", "arch"), "aarch64-linux-gnu", "arch-mismatch", ExitCode.INCOMPATIBLE),
        (("runtime", "abi_version"), 2, "abi-mismatch", ExitCode.INCOMPATIBLE),
        ((*PLANNER, "provider"), "CUDA", "no-provider", ExitCode.INCOMPATIBLE),
        (LIBRARY, "0" * 64, "member-changed", ExitCode.INTEGRITY),
        (LIBRARY[:2], None, "manifest-invalid", ExitCode.INTEGRITY),
        (("members", "tokenizer.json", "sha256"), "0" * 64, "integrity", ExitCode.INTEGRITY),
    ],
)
def test_python_raises_with_the_right_exit_code(
    copy: Copy, path: tuple[str, ...], value: Any, code: str, exit_code: ExitCode
) -> None:
    release = copy()
    manifest = read(release)
    edit(path, value)(manifest)
    tiny.write_manifest(release, manifest)
    with pytest.raises(LibraError) as caught:
        Policy(release)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (abi.ABI_MISMATCH, "abi-mismatch"),
        (abi.WRONG_ARCHITECTURE, "wrong-architecture"),
        (abi.NO_PROVIDER, "no-provider"),
        (abi.INCOMPATIBLE, "incompatible"),
    ],
)
def test_what_does_not_fit_has_a_remedy_of_its_own(status: int, code: str) -> None:
    remedies = set()
    for other in (status, abi.INCOMPATIBLE):
        name = f"LE_{code.upper().replace('-', '_')}"
        with pytest.raises(IncompatibleError) as caught:
            raise_status(other, name, "A sentence.")
        assert caught.value.code == code
        remedies.add(caught.value.remedy)
    assert len(remedies) == 1 + (status != abi.INCOMPATIBLE)


def test_a_changed_library_is_not_even_loaded(copy: Copy) -> None:
    release = copy()
    tiny.replace(release / "lib/liblibra_edge.so", b"\x7fELF nonsense")
    with pytest.raises(IntegrityError) as caught:
        Policy(release)
    assert caught.value.code == "member-changed"
