"""The conformance run: a right library passes, and whatever is wrong is a failed check."""

from __future__ import annotations

from pathlib import Path

import pytest

from libra_edge.bundle.verify import Release, open_release
from libra_edge.verification.native import child, conformance
from libra_edge.verification.native.child import SCRIPTS
from libra_edge.verification.native.conformance import GROUPS, run_scripts
from libra_edge.verification.native.pair import Differs, difference
from tests.runtime import native_build, tiny_release


@pytest.fixture(scope="module")
def opened(release: Path) -> Release:
    return open_release(release)


def test_every_script_belongs_to_a_check() -> None:
    groups = {name.partition(":")[0] for scripts in SCRIPTS.values() for name in scripts}
    assert groups == set(GROUPS)


@pytest.mark.long
def test_our_own_library_conforms(opened: Release) -> None:
    found = run_scripts(opened)
    assert found.is_alike, (found.ended, found.where, found.differs)
    assert min(found.steps.values()) >= 1000
    assert set(found.steps) == {"sync", "async"}
    checks = conformance.conformance(opened)
    assert {check.verdict for check in checks} == {"pass"}


def broken(release: Release, out: Path, source: str) -> Release:
    """The release with a library that is this C file."""
    copied = tiny_release.link_release(release.path, out)
    (out.parent / "broken.c").write_text(source)
    library = copied / "lib/liblibra_edge.so"
    library.unlink()
    native_build.zig(
        *("cc", *native_build.TARGET, "-shared", "-fPIC", "-O1"),
        *(str(out.parent / "broken.c"), "-o", str(library)),
    )
    tiny_release.seal(copied, tiny_release.manifest())
    return open_release(copied)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("__builtin_trap();", "it died of SIG"),
        ("for (;;) {}", "it did not end within 5 s"),
        ("_exit(7);", "it ended with status 7"),
        ("_exit(0);", "it ended early"),
    ],
)
def test_a_library_that_crashes_or_hangs_is_a_failed_check(
    opened: Release, tmp_path: Path, body: str, words: str
) -> None:
    text = "extern void _exit(int);\n__attribute__((constructor)) static void begin(void) "
    bad = broken(opened, tmp_path / "release", text + "{ " + body + " }\n")
    first, *others = conformance.conformance(bad, timeout_s=5.0 if "for" in body else 120.0)
    assert first.verdict == "fail"
    assert words in first.note
    assert "opening: the library" in first.note
    assert all(check.verdict != "pass" for check in others[1:])


def test_a_library_without_the_interface_is_a_failed_check(opened: Release, tmp_path: Path) -> None:
    bad = broken(opened, tmp_path / "release", "int le_abi_version(void) { return 1; }\n")
    assert conformance.conformance(bad)[0].verdict == "fail"


def test_differences_are_told_with_dimension_and_both_values() -> None:
    import numpy as np

    one, other = np.array([1, 2], np.float32), np.array([1, 2.5], np.float32)
    assert difference(one, other) == "is 2.5 in dimension 1, the reference says 2.0"
    assert difference(np.float32([0.0]), np.float32([-0.0]))
    assert not difference(np.float32([np.nan]), np.float32([np.nan]))
    assert difference(3, 4) == "is 4, the reference says 3"


def test_a_script_that_differs_is_named(
    opened: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(desk: object) -> None:
        raise Differs("le_step of step 3: action is 1.0 in dimension 0")

    releases = tmp_path / "probes"
    from libra_edge.verification.native.probe import NARROW
    from libra_edge.verification.native.releases import contracts, write_probe

    releases.mkdir()
    write_probe(opened, contracts(opened.manifest)[NARROW], releases / NARROW)
    monkeypatch.setattr(child, "SCRIPTS", {NARROW: {"sync: one": fails}})
    child.main(releases, tmp_path / "found.jsonl")
    found = conformance._read(tmp_path / "found.jsonl", "")
    assert found.differs == {
        "sync": ["narrow contract, sync: one: le_step of step 3: action is 1.0 in dimension 0"]
    }
