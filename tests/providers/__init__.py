"""Packages of plug-in providers for tests, as folders that Python finds before the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from libra_edge.catalog.providers import PROVIDERS, Provider
from tests.runtime.native_build import TARGET, zig

HERE = Path(__file__).parent
OPENVINO = PROVIDERS["OpenVINOExecutionProvider"]


def stand_in(folder: Path, provider: Provider) -> Path:
    """A package whose files are empty, for tests that only send them; `folder` is for the path."""
    package = folder / provider.module
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for file in provider.files:
        (package / (file.packed or file.name)).write_bytes(b"")
    return folder


def openvino_environment(folder: Path) -> dict[str, str] | None:
    """Settings of a process with which OpenVINO runs here; None where it is not installed.

    Its plug-in for ONNX Runtime offers Intel's processors alone, and OpenVINO itself runs on others
    too: on those a plug-in around it says that the processor is Intel's.
    """
    spec = find_spec(OPENVINO.module)
    if spec is None or spec.origin is None:
        return None
    here = {"OMP_NUM_THREADS": "1"}
    code = (
        "from libra_edge.engines._plugin import is_there\n"
        "from libra_edge.catalog.providers import PROVIDERS\n"
        f"raise SystemExit(not is_there(PROVIDERS[{OPENVINO.name!r}]))"
    )
    if (
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode
        == 0
    ):
        return here
    real, package = Path(spec.origin).parent, folder / OPENVINO.module
    package.mkdir(parents=True)
    for path in real.iterdir():
        (package / path.name).symlink_to(path)
    plugin = package / OPENVINO.files[-1].name
    plugin.unlink()
    zig(
        *("c++", "-std=c++20", *TARGET, "-O1", "-fPIC", "-shared", "-s", "-fvisibility=hidden"),
        *(str(HERE / "any_vendor.cc"), "-o", str(plugin)),
    )
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return here | {"PYTHONPATH": path, "LIBRA_EDGE_TEST_PLUGIN": str(real / plugin.name)}
