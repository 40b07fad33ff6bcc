from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "mujoco", "pyarrow", "av", "safetensors")
FIELD_MODULES = (
    "libra_edge.cli.app",
    "libra_edge.cli.inspect",
    "libra_edge.cli.pack",
    "libra_edge.cli.unpack",
    "libra_edge.cli.doctor",
    "libra_edge.cli.targets",
    "libra_edge.bundle.pack",
    "libra_edge.bundle.verify",
    "libra_edge.deploy.doctor",
    "libra_edge.runtime",
    "libra_edge.catalog",
)


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building in the tree would leave build/ behind and pick up stale files from it.
    tracked = ["pyproject.toml", "README.md", "LICENSE", "libra_edge", "cli", "targets"]
    copy = folder / "source"
    copy.mkdir()
    subprocess.run(["cp", "-r", *tracked, "calibration", str(copy)], cwd=ROOT, check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(copy)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_installs_one_top_level_name(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"libra_edge"}


def test_the_wheel_holds_data_and_native_sources(wheel_names: list[str]) -> None:
    expected = {
        "libra_edge/py.typed",
        "libra_edge/cli/app.py",
        *(f"libra_edge/targets/{p.name}" for p in (ROOT / "targets").glob("*.toml")),
        *(f"libra_edge/calibration/{p.name}" for p in (ROOT / "calibration").glob("*.toml")),
        *(
            p.relative_to(ROOT).as_posix()
            for folder in (
                "runtime/include",
                "runtime/src",
                "runtime/third_party",
                "report/templates",
            )
            for p in (ROOT / "libra_edge" / folder).rglob("*")
            if p.is_file()
        ),
    }
    assert not expected - set(wheel_names)


def test_the_wheel_holds_no_built_or_test_file(wheel_names: list[str]) -> None:
    assert not [name for name in wheel_names if re.search(r"\.(so|o|pyc)$|/tests?/", name)]


def test_every_package_is_listed() -> None:
    found = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "libra_edge").rglob("__init__.py")
    }
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    moved = set(PROJECT["tool"]["setuptools"]["package-dir"]) - {"libra_edge"}
    assert listed == found | moved


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {
        line.split("==")[0].lower().replace("_", "-"): line.split("==")[1]
        for line in lines
        if line and not line.startswith("#")
    }
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *(r for e in extras.values() for r in e)]:
        requirement = Requirement(text)
        if requirement.name != "libra-edge":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def test_what_the_field_uses_imports_nothing_heavy() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {FIELD_MODULES!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


def test_no_file_names_a_registry() -> None:
    files = ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"]
    for name in files:
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text), name


def test_ci_is_executable() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
