"""Plug-in providers in Python's ONNX Runtime, from the packages that the table names.

What a release runs on comes out of the release itself, in C++. This is how a build machine measures
parity with the same provider, at the same options.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from libra_edge.catalog.providers import PROVIDERS, Provider
from libra_edge.engines.session import OnnxRuntimeSession, Session, options_of
from libra_edge.errors import InputError

if TYPE_CHECKING:
    import onnxruntime as ort

NO_FALLBACK = "session.disable_cpu_ep_fallback"


def files_of(provider: Provider) -> dict[str, Path]:
    """The provider's files by the names that they have in a release.

    Raises:
        InputError: its package is not installed, or has other files.
    """
    spec = find_spec(provider.module)
    if spec is None or spec.origin is None:
        raise InputError(
            "provider-missing",
            f"Engines for {provider.words} need the package {provider.package}, which is not "
            "installed.",
            f"Install libra-edge[{provider.extra}].",
        )
    folder = Path(spec.origin).parent
    found = {file.member: folder / (file.packed or file.name) for file in provider.files}
    for path in found.values():
        if not path.is_file():
            raise InputError(
                "provider-missing",
                f"The installed package {provider.package} has no {path.name}.",
                f"Install libra-edge[{provider.extra}] again: it names the version that fits.",
            )
    return found


def is_there(provider: Provider) -> bool:
    """Whether this machine has the provider and a device that it runs on."""
    if provider.device == "gpu" or find_spec("onnxruntime") is None:
        return False
    return find_spec(provider.module) is not None and _device(provider.name) is not None


def open_plugin(
    content: bytes, provider: Provider, session_options: Mapping[str, str], threads: int
) -> Session:
    """An ONNX file on a provider that is there; every node, or none.

    Args:
        content: the ONNX file.
        provider: one that `is_there`.
        session_options: ONNX Runtime configuration entries.
        threads: intra-op threads.
    """
    import onnxruntime as ort

    options = options_of({**session_options, NO_FALLBACK: "1"}, threads)
    options.add_provider_for_devices([_device(provider.name)], provider.options_of("", threads))
    return OnnxRuntimeSession(ort.InferenceSession(content, options))


@cache
def _device(name: str) -> ort.OrtEpDevice | None:
    """The one device of a provider, which is registered by this; None where there is none."""
    import onnxruntime as ort

    provider = PROVIDERS[name]
    plugin = files_of(provider)[provider.files[-1].member]
    ort.register_execution_provider_library(provider.name, str(plugin))
    kind = ort.OrtHardwareDeviceType.CPU
    found = [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == provider.name and device.device.type == kind
    ]
    return found[0] if len(found) == 1 else None
