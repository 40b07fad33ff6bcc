from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from libra_edge.deploy import doctor
from libra_edge.deploy.doctor import examine, extras
from libra_edge.errors import InputError, LibraError


def by_name(wanted: frozenset[str] = frozenset()) -> dict[str, doctor.Check]:
    return {check.name: check for check in examine(wanted)}


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Make some packages look absent (None) or installed at another version."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions.get(name, real(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_every_extra_is_checked_and_what_is_missing_has_a_fix() -> None:
    checks = by_name()
    assert {f"extra {name}" for name in extras()} <= set(checks)
    assert checks["base install"].status == "ok"
    assert all(check.fix for check in checks.values() if check.status != "ok")


def test_a_missing_base_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, pydantic=None)
    check = by_name()["base install"]
    assert (check.status, check.found) == ("missing", "no pydantic")


@pytest.mark.parametrize(("wanted", "status"), [(set(), "optional"), ({"compile"}, "missing")])
def test_a_wrong_version_matters_where_asked(
    monkeypatch: pytest.MonkeyPatch, wanted: set[str], status: str
) -> None:
    pretend(monkeypatch, torch="2.12.0")
    check = by_name(frozenset(wanted))["extra compile"]
    assert (check.status, check.found) == (status, "torch 2.12.0 is not ==2.13.0")
    assert check.fix == "pip install 'libra-edge[compile]'"


def test_a_local_version_label_is_the_same_release(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, torch="2.13.0+cu130")
    assert "torch" not in by_name()["extra compile"].found


def test_dev_counts_what_the_other_extras_need(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnx=None)
    assert "no onnx" in by_name()["extra dev"].found


def test_no_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_loads", lambda soname: False)
    assert by_name()["renderer"].status == "optional"
    asked = by_name(frozenset({"sim"}))["renderer"]
    assert asked.status == "missing"
    assert "libosmesa6" in asked.fix


def test_a_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.sys, "executable", str(tmp_path / "no-python"))
    check = by_name()["c++ compiler"]
    assert check.status == "missing"
    assert "does not run" in check.found


def test_an_unknown_extra() -> None:
    with pytest.raises(InputError) as caught:
        examine(frozenset({"trian"}))
    assert caught.value.remedy == "Did you mean 'train'?"


def test_a_tree_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "metadata", absent)
    with pytest.raises(LibraError) as caught:
        examine()
    assert caught.value.code == "not-installed"
