"""`libra-edge inspect`."""

from __future__ import annotations

import json as json_module
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from libra_edge.bundle.engine_facts import Engine
from libra_edge.bundle.engine_files.rtx import COMPILER, engine_headers
from libra_edge.bundle.layer_table import precision_shares
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.roofline import release_bound
from libra_edge.bundle.verify import is_release, open_release, read_signature, verify_integrity
from libra_edge.catalog import list_targets
from libra_edge.errors import IntegrityError
from libra_edge.policy.config import Embodiment, PolicyConfig, read_config

from ._options import Json
from ._parity import gate_changes
from ._render import Output

_STAGES_OF_LAYERS = ("quantize", "quantise")  # releases of 0.1.0 say it with an s
_LONGEST_CHOICE = 80


def inspect(
    path: Annotated[
        Path, typer.Argument(help="Release (directory or .libra) or checkpoint.", metavar="PATH")
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="Every layer, decision and check, one by one.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a release or a checkpoint holds.

    Every byte of a release is checked first; of a checkpoint, only config.json is read.
    """
    output = Output("inspect", json)
    if is_release(path):
        _inspect_release(output, path, every_layer=layers)
    else:
        _inspect_checkpoint(output, path)


def _inspect_release(output: Output, path: Path, *, every_layer: bool) -> None:
    manifest = verify_integrity(path)
    policy = manifest.policy
    output.facts(
        f"release {manifest.name}",
        {
            "id": manifest.release_id,
            "target": f"{manifest.target} ({manifest.runtime.arch}, glibc >= "
            f"{manifest.runtime.glibc})",
            "recipe": manifest.recipe,
            **({"weights": "RANDOM: for measuring alone"} if manifest.random_weights else {}),
            "checkpoint": policy.checkpoint_sha256,
            "policy": f"{policy.type}, {policy.bins} bins, "
            f"{policy.chunks_per_plan} chunks x {policy.chunk} steps per plan",
            "denoising": f"{policy.denoise_steps} steps of {policy.scheduler}, "
            f"{policy.prediction_type} prediction",
            **_embodiment_facts(manifest.embodiment),
            "runtime": f"ABI {manifest.runtime.abi_version}, ONNX Runtime "
            f"{manifest.runtime.onnxruntime_version}",
            "signature": _signature(path),
            **({"security epoch": manifest.security_epoch} if manifest.security_epoch else {}),
            "tools": ", ".join(f"{name} {version}" for name, version in manifest.tools.items()),
        },
    )
    headers = _headers(output, path, manifest)
    measured = _measured(path, manifest.release_id)
    _release_tables(output, manifest, measured, every_layer=every_layer)
    gate_changes(output, manifest.gates, "of this release")
    size_bytes = sum(member.size_bytes for member in manifest.members.values())
    output.finish(
        {
            "kind": "release",
            "path": str(path),
            "release_id": manifest.release_id,
            "signed": read_signature(path) is not None,
            "manifest": manifest.model_dump(mode="json"),
            "engine_headers": headers,
        },
        f"{path}: {len(manifest.members)} members, {_size(size_bytes)}, every byte as the "
        "manifest says",
        next_command=("verify", path),
    )


def _headers(output: Output, path: Path, manifest: Manifest) -> dict[str, object]:
    """What compiled engines say of themselves; one that the manifest tells otherwise is refused.

    A `.libra` file is unpacked into the cache for that, and only if there are such engines.
    """
    made = [engine.compiled for engine in manifest.engines.by_name.values()]
    if all(one is None or one.compiler != COMPILER for one in made):
        return {}
    found = engine_headers(manifest, open_release(path).path)
    faults = [f"{name} engine, {fault}" for name, one in found.items() for fault in one.faults]
    if faults:
        raise IntegrityError(
            "engine-header-mismatch",
            f"{'; '.join(faults)}.",
            "Compile the release again: this one would be refused where it is to run.",
        )
    headers = {name: one.header for name, one in found.items() if one.header is not None}
    output.text("")
    output.table(
        ("engine's own header", "size", "version", "compute capability"),
        [
            (name, _size(one.size_bytes), one.version, ", ".join(one.capabilities))
            for name, one in headers.items()
        ],
    )
    return {name: vars(one) for name, one in headers.items()}


def _signature(path: Path) -> str:
    if read_signature(path) is None:
        return "none: nobody signed it"
    return "there, not checked: verify --signature-only --trust FILE"


def _bounds(output: Output, manifest: Manifest, measured: Mapping[str, float]) -> None:
    """The roofline of the target beside what was measured where the release was compiled."""
    target = list_targets().get(manifest.target)
    engines, chunks = manifest.engines, manifest.policy.chunks_per_plan
    least = release_bound(engines, chunks, target) if target else None
    planner, refiner = measured.get("planner"), measured.get(engines.refiner.form)
    average = None if planner is None or refiner is None else planner / chunks + refiner
    slow = least.planner if least else None
    rows = [("refiner", least.refiner.ms if least else None, refiner)]
    if manifest.policy.plans:
        mean = f"average of {chunks} chunks per plan"
        rows = [
            ("planner", slow.ms if slow else None, planner),
            *rows,
            (mean, least.average_ms if least else None, average),
        ]
    output.text("")
    output.table(
        ("latency", f"bound on {manifest.target}, ms", "measured where compiled, ms"),
        [(name, _milliseconds(b), _milliseconds(m)) for name, b, m in rows],
    )


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _measured(path: Path, release_id: str) -> dict[str, float]:
    """The figures of `NAME.build.json` beside the release, if it is of this release."""
    try:
        report = json_module.loads(path.with_name(f"{path.name}.build.json").read_bytes())
        same = report["release_id"] == release_id
        return {str(k): float(v) for k, v in report["medians_ms"].items()} if same else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _release_tables(
    output: Output, manifest: Manifest, measured: Mapping[str, float], *, every_layer: bool
) -> None:
    engines, forms = manifest.engines.by_name, {"refiner": manifest.engines.refiner.form}
    output.text("")
    output.table(
        ("engine", "kind", "provider", "form", "compiled by"),
        [
            (name, one.kind, one.provider, forms.get(name, "one pass"), _compiler(one))
            for name, one in engines.items()
        ],
    )
    if every_layer:
        _layers(output, manifest)
    _shares(output, manifest)
    _bounds(output, manifest, measured)
    output.text("")
    output.table(
        ("member", "size", "sha256"),
        [(n, _size(m.size_bytes), m.sha256[:12]) for n, m in sorted(manifest.members.items())],
    )
    _decisions(output, manifest, every_layer=every_layer)
    _checks(output, manifest, every_check=every_layer)


def _layers(output: Output, manifest: Manifest) -> None:
    """What each layer runs in, as the built engine says, and the weight bytes that it moves."""
    if not manifest.layers:
        return
    output.text("")
    output.table(
        ("layer", "runs in", "kernel", "weights", "per call"),
        [
            (
                layer.name,
                layer.precision,
                layer.kernel,
                _size(layer.weight_bytes),
                _size(layer.weight_bytes * layer.runs),
            )
            for layer in manifest.layers
        ],
    )


def _shares(output: Output, manifest: Manifest) -> None:
    """The layers by precision."""
    if not manifest.layers:
        return
    output.text("")
    output.table(
        ("runs in", "layers", "weights", "moved by one plan and one chunk"),
        [
            (one.precision, one.layers, _size(one.weight_bytes), _size(one.moved_bytes))
            for one in precision_shares(manifest.layers)
        ],
    )


def _decisions(output: Output, manifest: Manifest, *, every_layer: bool) -> None:
    """Why things are as they are; the many about single layers only where they are asked for."""
    every = manifest.decisions
    shown = [d for d in every if every_layer or d.stage not in _STAGES_OF_LAYERS]
    output.text("")
    output.table(
        ("decided in", "subject", "choice", "reason"),
        [
            (d.stage, d.subject, d.choice if every_layer else _shortened(d.choice), d.reason)
            for d in shown
        ],
    )
    if left := len(every) - len(shown):
        output.text(f"and {left} decisions about single layers: --layers shows them")


def _checks(output: Output, manifest: Manifest, *, every_check: bool) -> None:
    """What was measured as the release was made: stage by stage, or check by check."""
    parity = manifest.parity
    output.text("")
    if every_check:
        output.table(
            ("parity stage", "metric", "threshold", "verdict"),
            [(c.stage, c.metric, _number(c.threshold), c.verdict) for c in parity.checks],
        )
    else:
        verdicts = Counter((check.stage, check.verdict) for check in parity.checks)
        output.table(
            ("parity stage", "checks", "verdict"),
            [(stage, count, verdict) for (stage, verdict), count in verdicts.items()],
        )
    output.text(f"parity: {parity.verdict} on {parity.samples} samples")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CHOICE else f"{text[:_LONGEST_CHOICE]}…"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _compiler(engine: Engine) -> str:
    made = engine.compiled
    if made is None:
        return "– (plain graph)"
    return f"{made.compiler} {made.version} for compute capability {made.compute_capability}"


def _inspect_checkpoint(output: Output, path: Path) -> None:
    config = read_config(path / "config.json")
    files = {
        entry.name: entry.stat().st_size for entry in sorted(path.iterdir()) if entry.is_file()
    }
    output.facts(f"checkpoint {path}", _checkpoint_facts(config))
    output.text("")
    output.table(("file", "size"), [(name, _size(size)) for name, size in files.items()])
    output.finish(
        {
            "kind": "checkpoint",
            "path": str(path),
            "config": config.model_dump(mode="json"),
            "files": [{"name": name, "size_bytes": size} for name, size in files.items()],
        },
        f"{path}: config.json is valid; the weights were not read",
        next_command=("compile", path),
    )


def _checkpoint_facts(config: PolicyConfig) -> dict[str, object]:
    schedule, backbone = config.schedule, config.planner.backbone
    eyes = config.refiner and config.refiner.eyes
    refiner = (
        f"width {config.refiner.width}, {config.refiner.layers} layers"
        + (f"; {eyes.kind} eyes, width {eyes.hidden_size}" if eyes else "")
        if config.refiner
        else "none (monolithic ablation)"
    )
    return {
        "policy": f"{config.type}, {config.bins} bins, "
        f"{config.chunks_per_plan} chunks x {config.chunk} steps per plan",
        "planner": f"{backbone.words}; head of {config.planner.head_layers} layers",
        "refiner": refiner,
        "denoising": f"{schedule.denoise_steps} steps of {schedule.scheduler}, "
        f"{schedule.prediction_type} prediction, trained on {schedule.train_steps}",
        "normalised by": f"state {config.normalization.state}, "
        f"action {config.normalization.action}",
        **_embodiment_facts(config.embodiment),
    }


def _embodiment_facts(robot: Embodiment) -> dict[str, object]:
    return {
        "robot": f"{robot.name} at {robot.control_hz:g} Hz",
        "cameras": f"{', '.join(robot.cameras)} ({robot.image_width} x {robot.image_height})",
        "state": ", ".join(f"{dim.name} [{dim.unit}]" for dim in robot.state),
        "actions": ", ".join(f"{dim.name} [{dim.unit}, {dim.kind}]" for dim in robot.actions),
    }


def _size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    if size_bytes < 1024**2:
        return f"{size_bytes / 1024:.1f} KiB"
    return f"{size_bytes / 1024**2:.1f} MiB"
