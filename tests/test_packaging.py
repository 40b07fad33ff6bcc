from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from packaging.requirements import Requirement

from libra_edge.catalog import list_targets
from libra_edge.runtime.build import source_hash
from tests.packaging.built_wheel import build_wheel, copy_sources

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
HEAVY = ("torch", "onnx", "onnxruntime", "transformers", "mujoco", "pyarrow", "av", "safetensors")
SHIPPED = "libra_edge/runtime/shipped/"
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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> list[str]:
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


def test_the_wheel_ships_the_native_runtime_of_every_target(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        index = json.loads(archive.read(f"{SHIPPED}index.json"))
        assert index["sources"] == source_hash()
        for target in list_targets().values():
            name = f"liblibra_edge-{target.arch}-{target.glibc}.so"
            content = archive.read(SHIPPED + name)
            assert hashlib.sha256(content).hexdigest() == index["sha256"][name]
            machine = ELFFile(io.BytesIO(content)).get_machine_arch()
            assert {"x64": "x86_64", "AArch64": "aarch64"}[machine] == target.arch.split("-")[0]


def test_the_wheel_holds_no_other_built_or_test_file(wheel_names: list[str]) -> None:
    others = [name for name in wheel_names if not name.startswith(SHIPPED)]
    assert not [name for name in others if re.search(r"\.(so|o|pyc)$|/tests?/", name)]


def test_only_a_wheel_with_libraries_needs_the_compiler(tmp_path: Path) -> None:
    """Not an sdist, not an editable install, and not a wheel that leaves them out by name."""
    code = (
        "import json, wheel_backend as backend\n"
        "none = {'native-libraries': 'none'}\n"
        "hooks = [backend.get_requires_for_build_wheel()]\n"
        "hooks += [backend.get_requires_for_build_wheel(none)]\n"
        "hooks += [backend.get_requires_for_build_editable()]\n"
        "hooks += [backend.get_requires_for_build_sdist()]\n"
        "print(json.dumps([any('ziglang' in line for line in needed) for needed in hooks]))\n"
        f"print(backend.build_sdist({str(tmp_path)!r}))"
    )
    source = copy_sources(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=source, check=True, capture_output=True, text=True
    )
    lines = run.stdout.splitlines()
    needs = next(line for line in lines if line.startswith("["))
    assert json.loads(needs) == [True, False, False, False]
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path)]
    pip += ["--config-settings", "native-libraries=none", str(tmp_path / lines[-1])]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(SHIPPED)]
    assert "libra_edge/runtime/include/libra_edge.h" in names
    assert "libra_edge/targets/cpu-x86_64.toml" in names


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
