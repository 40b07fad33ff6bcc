"""Builds the wheel: setuptools, and the native runtime's libraries for every target.

A wheel ships the libraries, so that a first compile takes seconds; its build therefore needs the
cross-compiler. An editable install and an sdist need neither: a source checkout compiles on first
use. Where the cross-compiler cannot be had, `--config-settings native-libraries=none` leaves the
libraries out, and whoever compiles a policy compiles them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.build_py import build_py

__all__ = [
    "BuildPy",
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parent
SETTING = "native-libraries"
Settings = Mapping[str, Any] | None
_with_libraries = False


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What setuptools needs, and the cross-compiler that releases are made with."""
    needed = list(build_meta.get_requires_for_build_wheel(config_settings))
    return [*needed, _compiler()] if _wanted(config_settings) else needed


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """A wheel with the libraries of every target in it."""
    global _with_libraries
    _with_libraries = _wanted(config_settings)
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


class BuildPy(build_py):  # type: ignore[misc]  # setuptools has no types
    """Copies the packages, then adds the libraries to the copy."""

    def run(self) -> None:
        """See `build_py`."""
        super().run()
        if _with_libraries and not self.editable_mode:
            # Imported here: neither an sdist nor an editable install needs it.
            from libra_edge.runtime import libraries

            folder = Path(self.build_lib, "libra_edge", "runtime", libraries.SHIPPED.name)
            libraries.write_shipped(folder, _targets(), _say)


def _wanted(config_settings: Settings) -> bool:
    choice = (config_settings or {}).get(SETTING, "all")
    if choice not in ("all", "none"):
        raise SystemExit(f"{SETTING}={choice} is neither all nor none")
    return bool(choice == "all")


def _compiler() -> str:
    """The cross-compiler at the version that the extra `compile` pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra: list[str] = project["optional-dependencies"]["compile"]
    return next(line for line in extra if line.startswith("ziglang"))


def _targets() -> set[tuple[str, str]]:
    """Architecture and glibc of every target."""
    paths = (ROOT / "targets").glob("*.toml")
    found = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in paths}
    whole = [found.get(one.get("based_on", ""), {}) | one for one in found.values()]
    return {(target["arch"], target["glibc"]) for target in whole}


def _say(done: int, total: int, what: str) -> None:
    print(f"native library: {done} of {total} {what}", flush=True)
