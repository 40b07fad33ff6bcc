"""Makes a release usable on this machine: build its engines here, replay the golden vectors, mark.

What is built is kept by a fingerprint of everything it depends on: the graphs' bytes, the provider
and its version, the device and its driver. A change of any of them builds again. A release is
usable only after its golden vectors came out right on this machine, and stays so only as long as
every byte is what was marked. Needs the field install alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from libra_edge.atomic import new_directory, new_file
from libra_edge.binding.library import build_engines
from libra_edge.bundle.compatibility import (
    CPU,
    Device,
    needs_of,
    provisioned_needs,
    require_compatible,
    require_trained,
    this_device,
)
from libra_edge.bundle.manifest import Manifest, canonical_json
from libra_edge.bundle.verify import Release, open_release
from libra_edge.catalog.providers import PROVIDERS, Provider
from libra_edge.deploy import tensorrt
from libra_edge.errors import IncompatibleError, IntegrityError, ParityError
from libra_edge.parity.gates import Check
from libra_edge.paths import StrPath
from libra_edge.user_cache import cache_folder, make_writable
from libra_edge.verification.request import Request
from libra_edge.verification.verify import verify_release

MARK = "usable.json"
SCHEMA_VERSION = 2
GRAPHS = ("engines/planner.onnx", "engines/refiner.onnx")
OnStage = Callable[[str], None]


class Builder(Protocol):
    """Builds engines from graphs on this machine."""

    provider: str

    def version(self) -> str:
        """Of the library that builds and runs the engines."""
        ...

    def build(self, release: Release, folder: Path) -> None:
        """Write the engines into an empty folder, by the names of the graphs."""
        ...


class PlainGraphs:
    """The CPU provider: the graphs are the engines, there is nothing to build."""

    provider = CPU

    def __init__(self, onnxruntime_version: str) -> None:
        self._version = onnxruntime_version

    def version(self) -> str:
        """Of ONNX Runtime, which lies in the release."""
        return self._version

    def build(self, release: Release, folder: Path) -> None:
        """Keep the graphs as they are."""
        for name in graphs_of(release.manifest):
            (folder / _engine_name(name)).write_bytes(release.member(name).read_bytes())


class Plugin:
    """A provider whose files the release brings along: its own library builds the engines."""

    def __init__(self, provider: Provider, manifest: Manifest) -> None:
        self.provider = provider.name
        plugin = provider.files[-1].member
        self._version = manifest.members[plugin].sha256

    def version(self) -> str:
        """Of the provider: its plug-in's SHA-256."""
        return self._version

    def build(self, release: Release, folder: Path) -> None:
        """See `le_build_engines`, which also marks what it wrote as not proven."""
        build_engines(release.path, folder)


@dataclass(frozen=True)
class Provisioned:
    """A release that this machine may run; built: whether anything was made for it just now."""

    folder: Path
    fingerprint: str
    provider: str
    built: bool
    checks: tuple[Check, ...]


def fingerprint(manifest: Manifest, builder: Builder, device: Device) -> str:
    """Sha256 (hex) of everything that engines built here depend on."""
    provision = manifest.provision
    content = {
        "schema_version": SCHEMA_VERSION,
        "graphs": {name: manifest.members[name].sha256 for name in graphs_of(manifest)},
        "native": manifest.members["lib/liblibra_edge.so"].sha256,
        "provider": builder.provider,
        "provider_version": builder.version(),
        "options": dict(provision.options) if provision else {},
        "arch": device.arch,
        "compute_capability": device.compute_capability,
        "versions": dict(device.versions),
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def provision(
    path: StrPath,
    *,
    provider: str | None = None,
    cache: StrPath | None = None,
    builders: Sequence[Builder] = (),
    device: Device | None = None,
    on_stage: OnStage = lambda _: None,
) -> Provisioned:
    """Build, replay, mark; does nothing where the same was done before.

    Args:
        path: release directory or `.libra` file.
        provider: the execution provider; None takes the one that the release is meant for. The
            CPU has to be asked for by name where that is another.
        cache: where engines are kept; None takes the user's cache folder.
        builders: besides the CPU's.
        device: the machine; None looks at this one.
        on_stage: called with what is going on.

    Raises:
        IncompatibleError: the release does not fit this machine, or nothing here can build for it.
        IntegrityError: the release is not the bytes its manifest says.
        ParityError: the golden vectors did not come out right; the release is not usable.
    """
    path = Path(path)
    cache = None if cache is None else Path(cache)
    release = open_release(path)
    manifest, found = release.manifest, device or this_device()
    require_trained(manifest)
    builder = _builder(manifest, provider, builders)
    on_stage("compatibility")
    if isinstance(builder, Plugin | tensorrt.TensorRt):
        # Its own library says what the device lacks.
        found = replace(found, providers=found.providers | {builder.provider})
    on_cpu = builder.provider == CPU
    require_compatible(needs_of(manifest) if on_cpu else provisioned_needs(manifest), found)
    key = fingerprint(manifest, builder, found)
    folder = (cache or default_cache()) / key
    if not _is_usable(folder, key, manifest):
        on_stage("build")
        _build(release, builder, folder)
        checks = _replay(release, builder, folder, on_stage)
        _mark(folder, key, manifest, builder, checks)
        return Provisioned(folder, key, builder.provider, True, checks)
    return Provisioned(folder, key, builder.provider, False, ())


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/libra-edge/engines`, or the same under `~/.cache`."""
    return cache_folder("engines")


def _builder(manifest: Manifest, provider: str | None, builders: Sequence[Builder]) -> Builder:
    wanted = provider or (manifest.provision.provider if manifest.provision else CPU)
    plain = PlainGraphs(manifest.runtime.onnxruntime_version)
    members = manifest.members.keys()
    brought = [Plugin(one, manifest) for one in PROVIDERS.values() if one.members <= members]
    every: list[Builder] = [plain, *brought, *builders]
    known = {builder.provider: builder for builder in every}
    if wanted in known:
        return known[wanted]
    if wanted == tensorrt.PROVIDER:
        return tensorrt.TensorRt(manifest.provision.options if manifest.provision else {})
    raise IncompatibleError(
        "provider-not-built",
        f"{manifest.name} is to run on {wanted}, and the runtime in it builds and runs engines for "
        f"{', '.join(sorted(known))} alone.",
        f"Run it on the CPU, slower, with --provider {CPU}.",
    )


def graphs_of(manifest: Manifest) -> tuple[str, ...]:
    """The graphs that engines are built of."""
    return tuple(name for name in GRAPHS if name in manifest.members)


def _build(release: Release, builder: Builder, folder: Path) -> None:
    make_writable(folder.parent, "--cache")
    with new_directory(folder) as partial:
        builder.build(release, partial)


def _replay(
    release: Release, builder: Builder, folder: Path, on_stage: OnStage
) -> tuple[Check, ...]:
    """The golden vectors on the engines as this machine runs them.

    Raises:
        ParityError: one gate failed, or could not be measured.
    """
    engines = None if builder.provider == CPU else folder
    request = Request(release.path, golden_only=True, engines=engines)
    checks = verify_release(request, on_stage).checks
    wrong = [check for check in checks if check.verdict != "pass"]
    if wrong:
        first = wrong[0]
        raise ParityError(
            "golden-replay-failed",
            f"{first.stage} on {builder.provider}: {first.metric} is {first.verdict} "
            f"({first.note or f'{first.value:.3g}, gate {first.threshold:g}'}).",
            "The release was not made usable; what ran before still stands. Compile it again for "
            "this machine's target.",
        )
    return checks


def _mark(
    folder: Path, key: str, manifest: Manifest, builder: Builder, checks: Sequence[Check]
) -> None:
    """Say that the engines are proven here, in the form that `le_open` reads."""
    engines = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != MARK}
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "release": manifest.release_id,
        "provider": builder.provider,
        "device": "",
        "engines": engines,
    }
    if (folder / MARK).is_file():
        # What the library wrote when it built them; the machine's name is its own.
        written = json.loads((folder / MARK).read_bytes())
        content["device"] = written["device"]
        if written["engines"] != engines:
            raise IntegrityError(
                "engines-changed",
                f"The engines in {folder} changed while they were replayed.",
                "Run the command again; look at who else writes to that folder.",
            )
    content |= {
        "proven": True,
        "fingerprint": key,
        "checks": [check.to_json() for check in checks],
    }
    with new_file(folder / MARK) as stream:
        stream.write(canonical_json(content))


def _is_usable(folder: Path, key: str, manifest: Manifest) -> bool:
    """Whether what lies there was marked for this fingerprint and is still those bytes."""
    try:
        mark = json.loads((folder / MARK).read_bytes())
        return (
            mark["schema_version"] == SCHEMA_VERSION
            and mark["fingerprint"] == key
            and mark["release"] == manifest.release_id
            and mark["proven"] is True
            and set(mark["engines"]) == {path.name for path in folder.iterdir()} - {MARK}
            and all(_sha256(folder / name) == digest for name, digest in mark["engines"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _engine_name(graph: str) -> str:
    return Path(graph).name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_json(done: Provisioned) -> dict[str, Any]:
    """For `--json`."""
    body = asdict(done) | {"folder": str(done.folder)}
    return body | {"checks": [check.to_json() for check in done.checks]}
