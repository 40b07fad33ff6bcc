from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from libra_edge import atomic
from libra_edge.bundle.members import MANIFEST, MEMBERS
from libra_edge.bundle.pack import pack_release, unpack_release, write_release
from libra_edge.bundle.verify import open_release, verify_integrity
from libra_edge.errors import ExitCode, InputError, IntegrityError, LibraError
from tests.bundle.examples import facts, files, make_release


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_release_holds_the_members_and_nothing_else(release: Path) -> None:
    assert set(contents(release)) == MEMBERS | {MANIFEST}
    assert [p.name for p in release.parent.iterdir()] == [release.name]
    assert verify_integrity(release).name == "example"


def test_one_file_and_back_is_the_same_release(release: Path, tmp_path: Path) -> None:
    packed = tmp_path / "one.libra"
    pack_release(release, packed)
    unpack_release(packed, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(release)


def test_same_release_same_bytes(tmp_path: Path) -> None:
    for place in ("here", "elsewhere"):
        pack_release(make_release(tmp_path / place), tmp_path / f"{place}.libra")
    assert (tmp_path / "here.libra").read_bytes() == (tmp_path / "elsewhere.libra").read_bytes()


def test_the_file_is_a_plain_tar(release: Path, tmp_path: Path) -> None:
    pack_release(release, tmp_path / "one.libra")
    with tarfile.open(tmp_path / "one.libra", "r:") as archive:
        names = archive.getnames()
        assert names == [MANIFEST, *sorted(MEMBERS)]
        for name in names:
            stream = archive.extractfile(name)
            assert stream is not None
            assert stream.read() == (release / name).read_bytes()


def test_members_can_be_files_or_bytes(release: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "copy", facts(), {name: release / name for name in MEMBERS})
    assert contents(tmp_path / "copy") == contents(release)


def test_writing_again_is_idempotent(release: Path, tmp_path: Path) -> None:
    packed = tmp_path / "one.libra"
    pack_release(release, packed)
    before = {path: path.stat().st_mtime_ns for path in (packed, release / MANIFEST)}
    pack_release(release, packed)
    unpack_release(packed, release)
    write_release(release, facts(), files())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_release_is_replaced_only_on_request(release: Path, tmp_path: Path) -> None:
    other = make_release(tmp_path, "other")
    pack_release(other, tmp_path / "other.libra")
    pack_release(release, tmp_path / "one.libra")
    before = contents(release)
    for attempt in (
        lambda: write_release(release, facts("other"), files()),
        lambda: unpack_release(tmp_path / "other.libra", release),
        lambda: pack_release(other, tmp_path / "one.libra"),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert caught.value.code == "destination-exists"
    assert contents(release) == before

    unpack_release(tmp_path / "other.libra", release, replace=True)
    pack_release(other, tmp_path / "one.libra", replace=True)
    assert contents(release) == contents(other)
    assert verify_integrity(tmp_path / "one.libra").name == "other"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_is_no_release_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError) as caught:
        write_release(home, facts(), files(), replace=True)
    assert caught.value.code == "destination-exists"
    assert (home / "thesis.tex").read_text() == "years of work"


def test_a_wrong_set_of_members_is_a_bug(tmp_path: Path) -> None:
    incomplete = files()
    del incomplete["tokenizer.json"]
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        write_release(tmp_path / "r", facts(), incomplete)
    assert not list(tmp_path.iterdir())


def test_open_unpacks_into_the_cache_and_heals_it(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = tmp_path / "one.libra"
    pack_release(release, packed)
    opened = open_release(packed)
    assert contents(opened.path) == contents(release)
    assert opened.path.is_relative_to(tmp_path / "cache")
    assert open_release(release).path == release

    opened.member("engines/planner.onnx").write_bytes(b"evil")
    assert contents(open_release(packed).path) == contents(release)


def test_a_good_cache_does_not_excuse_a_changed_file(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = tmp_path / "one.libra"
    pack_release(release, packed)
    open_release(packed)
    data = bytearray(packed.read_bytes())
    data[-1600] ^= 1
    packed.write_bytes(data)
    with pytest.raises(IntegrityError):
        open_release(packed)


FULL_DISK = """
import resource, sys
from pathlib import Path
from libra_edge.bundle.pack import pack_release, unpack_release, write_release
from libra_edge.errors import LibraError
from tests.bundle.examples import facts, files

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
attempts = {
    "write": lambda: write_release(folder / "new", facts(), files()),
    "pack": lambda: pack_release(folder / "example", folder / "new.libra"),
    "unpack": lambda: unpack_release(folder / "one.libra", folder / "new"),
}
try:
    attempts[sys.argv[2]]()
except LibraError as error:
    print(error.code)
    sys.exit(int(error.exit_code))
"""


@pytest.mark.parametrize("action", ["write", "pack", "unpack"])
def test_no_space_leaves_nothing(release: Path, tmp_path: Path, action: str) -> None:
    """The kernel refuses the write (a file size limit): the same path as a full disk."""
    pack_release(release, tmp_path / "one.libra")
    before = sorted(tmp_path.rglob("*"))
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), action],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (run.stdout, run.returncode) == ("disk-full\n", ExitCode.FAILED), run.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        write_release(tmp_path / "file" / "release", facts(), files())
    assert caught.value.code == "cannot-write"


def test_a_crash_while_writing_leaves_the_old_release(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(release)

    def stop(first: Path, second: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_exchange", stop)
    with pytest.raises(KeyboardInterrupt):
        write_release(release, facts("other"), files(), replace=True)
    assert contents(release) == before
    assert [p.name for p in release.parent.iterdir()] == [release.name]


KILLED = """
import sys
from pathlib import Path
from libra_edge.bundle.pack import write_release
from tests.bundle.examples import facts, files
write_release(Path(sys.argv[1]), facts("other"), files(), replace=True)
"""


def can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-qq", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not can_trace(), reason="strace, which pulls the plug, does not run here")
@pytest.mark.parametrize(
    ("call", "when", "survivor"),
    [
        ("fsync", 1, "example"),
        ("fsync", 19, "example"),
        ("renameat2", 1, "example"),
        ("fsync", 20, "other"),
        ("fsync", 21, "other"),
    ],
)
def test_killed_while_replacing(release: Path, call: str, when: int, survivor: str) -> None:
    """19 fsyncs make the new release durable, then one exchange, then two for the folder."""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    inject = ["-e", f"inject={call}:signal=KILL:when={when}"]
    run = subprocess.run(
        [*strace, *inject, sys.executable, "-c", KILLED, str(release)],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
    )
    assert run.returncode == -signal.SIGKILL
    assert verify_integrity(release).name == survivor


def test_a_member_over_its_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraError) as caught:
        write_release(
            tmp_path / "r", facts(), {**files(), "include/libra_edge.h": bytes(2 * 1024**2)}
        )
    assert caught.value.code == "member-too-large"
    assert not list(tmp_path.iterdir())
