"""Checks of this machine: what was found, what is needed, how to fix it."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from libra_edge.errors import InputError, LibraError, did_you_mean
from libra_edge.runtime.libraries import is_shipped
from libra_edge.user_cache import cache_folder, make_writable

DISTRIBUTION = "libra-edge"
NEEDED_PYTHON = (3, 11)
COMPILER_TIMEOUT_S = 60.0
IMPORT_TIMEOUT_S = 300.0
SHOWN = 4  # misfits named per extra; the fix is the same for all
_RENDERERS = {
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
    "egl": ("libEGL.so.1",),
}

# What the commands of an extra import: a package may need another that it does not name.
_MODULES = {
    "compile": (
        "libra_edge.compiler.pipeline",
        "libra_edge.data.lerobot",
        "modelopt.torch.quantization",
        "transformers",
    ),
    "sim": ("libra_edge.data.collect", "metaworld", "mujoco"),
    "train": ("libra_edge.training.run", "torch.utils.tensorboard", "transformers"),
}

Status = Literal["ok", "missing", "optional"]


@dataclass(frozen=True)
class Check:
    """One check. `missing` fails the run; `optional` is absent and was not asked for."""

    name: str
    status: Status
    found: str
    needed: str
    fix: str = ""


def extras() -> list[str]:
    """The installable extras, as the installed package declares them."""
    try:
        return sorted(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())
    except metadata.PackageNotFoundError:
        raise LibraError(
            "not-installed",
            f"{DISTRIBUTION} runs from a source tree that was never installed.",
            "Run `make setup`, or `pip install -e .` in the source tree.",
        ) from None


def examine(wanted: frozenset[str] = frozenset()) -> list[Check]:
    """Run every check.

    Args:
        wanted: extras that must be complete; what the others lack is reported, not failed.

    Raises:
        InputError: `wanted` names an extra that does not exist.
    """
    known = extras()
    for name in sorted(wanted - set(known)):
        raise InputError("unknown-extra", f"There is no extra {name!r}.", did_you_mean(name, known))
    # dev is the others plus tools, so wanting it wants what they need.
    wanted = wanted | ({"compile", "train", "sim"} if "dev" in wanted else set())
    checks = [_python(), _system(), _packages(None, required=True)]
    checks += [_packages(extra, required=extra in wanted) for extra in known]
    checks += [_imports(extra) for extra in sorted(wanted & _MODULES.keys())]
    checks += [
        _cache(),
        _native_library(),
        _onnxruntime_library(required="compile" in wanted),
        _compiler(required="compile" in wanted),
        _renderer(required="sim" in wanted),
    ]
    return checks


def _absent(required: bool) -> Status:
    return "missing" if required else "optional"


def _python() -> Check:
    needed = ".".join(map(str, NEEDED_PYTHON))
    ok = sys.version_info >= NEEDED_PYTHON
    return Check(
        "python",
        "ok" if ok else "missing",
        platform.python_version(),
        f">= {needed}",
        "" if ok else f"Install Python {needed} or newer and make a new environment with it.",
    )


def _system() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    ok = platform.system() == "Linux"
    fix = "" if ok else "Use a Linux machine; releases are for Linux robots."
    return Check("system", "ok" if ok else "missing", found, "Linux", fix)


def _packages(extra: str | None, *, required: bool) -> Check:
    """All packages of an extra (of the base install if None), at versions that fit."""
    requirements = {requirement.name: requirement for requirement in _requirements(extra)}
    wrong = [fact for requirement in requirements.values() if (fact := _misfit(requirement))]
    name = "base install" if extra is None else f"extra {extra}"
    install = DISTRIBUTION if extra is None else f"{DISTRIBUTION}[{extra}]"
    needed = f"{len(requirements)} package{'s' * (len(requirements) != 1)}"
    if not wrong:
        return Check(name, "ok", "all", needed)
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    found = ", ".join(wrong[:SHOWN]) + more
    return Check(name, _absent(required), found, needed, f"pip install '{install}'")


def _misfit(requirement: Requirement) -> str:
    """What is wrong with the installed package; empty if it fits."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"no {requirement.name}"
    # A local label such as 2.13.0+cpu counts as the same release.
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is not {requirement.specifier}"


def _requirements(extra: str | None) -> Iterator[Requirement]:
    """Requirements of the base install (None), or those an extra adds, other extras unfolded."""
    for line in metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        in_base = _applies(requirement, "")
        wanted = in_base if extra is None else not in_base and _applies(requirement, extra)
        if not wanted:
            continue
        if requirement.name == DISTRIBUTION:
            for other in sorted(requirement.extras):
                yield from _requirements(other)
        else:
            yield requirement


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _imports(extra: str) -> Check:
    """Whether the commands of an extra start at all, in a process of their own."""
    modules = _MODULES[extra]
    command = [sys.executable, "-W", "ignore", "-c", f"import {', '.join(modules)}"]
    name, needed = f"commands of {extra}", ", ".join(modules)
    fix = f"pip install --force-reinstall '{DISTRIBUTION}[{extra}]'"
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Check(name, "missing", f"no start within {IMPORT_TIMEOUT_S:g} s", needed, fix)
    if run.returncode == 0:
        return Check(name, "ok", "all start", needed)
    why = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
    if lacking := re.fullmatch(r"ModuleNotFoundError: No module named '([\w.]+)'", why):
        fix = f"pip install {lacking[1].split('.')[0]}"
    return Check(name, "missing", why, needed, fix)


def _cache() -> Check:
    try:
        folder = make_writable(cache_folder(""))
    except LibraError as error:
        return Check("cache", "missing", error.fact, "a folder to write to", error.remedy)
    return Check("cache", "ok", str(folder), "a folder to write to")


def _native_library() -> Check:
    found = "shipped" if is_shipped() else "compiled on first use, in about a minute"
    return Check("native runtime", "ok", found, "shipped, or a compiler")


def _onnxruntime_library(*, required: bool) -> Check:
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parent / "capi" if spec and spec.origin else None
    found = sorted(folder.glob("libonnxruntime.so.*")) if folder else []
    if found:
        return Check("onnxruntime library", "ok", found[-1].name, "libonnxruntime.so")
    return Check(
        "onnxruntime library",
        _absent(required),
        "none",
        "libonnxruntime.so",
        f"pip install '{DISTRIBUTION}[compile]'",
    )


def _compiler(*, required: bool) -> Check:
    fix = f"pip install '{DISTRIBUTION}[compile]'"
    if find_spec("ziglang") is None:
        return Check("c++ compiler", _absent(required), "none", "ziglang", fix)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "ziglang", "version"],
            capture_output=True,
            text=True,
            timeout=COMPILER_TIMEOUT_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        return Check("c++ compiler", "missing", f"ziglang does not run: {error}", "ziglang", fix)
    return Check("c++ compiler", "ok", f"ziglang {run.stdout.strip()}", "ziglang")


def _renderer(*, required: bool) -> Check:
    found = [name for name, sonames in _RENDERERS.items() if any(map(_loads, sonames))]
    if found:
        return Check("renderer", "ok", ", ".join(found), "OSMesa or EGL")
    return Check(
        "renderer",
        _absent(required),
        "none",
        "OSMesa or EGL",
        "apt-get install libosmesa6 libegl1 libgl1 libgl1-mesa-dri libegl-mesa0",
    )


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True
