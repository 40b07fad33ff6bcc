"""What changed from one release to another, from their manifests and build reports alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.bundle.layer_table import in_words, layer_blocks, precision_shares
from libra_edge.bundle.manifest import Decision, Manifest

Pairs = Mapping[str, object]
_ABSENT = "–"
_LONGEST = 200


@dataclass(frozen=True)
class Change:
    """One fact that differs; what a release does not have shows as a dash."""

    section: str
    subject: str
    before: str
    after: str
    note: str = ""


def diff_releases(
    before: Manifest,
    after: Manifest,
    before_report: Mapping[str, Any] | None = None,
    after_report: Mapping[str, Any] | None = None,
) -> list[Change]:
    """Every fact that differs, in the order a reviewer asks.

    Policy, graph, precision, what was decided and gated, parity before speed, size, tools.

    Args:
        before: the one manifest.
        after: the other.
        before_report: the first one's `NAME.build.json`, where there is one.
        after_report: the other's.
    """
    speeds = _speed(before, before_report), _speed(after, after_report)
    return [
        *_facts("policy", _policy(before), _policy(after)),
        *_facts("graph", _graph(before), _graph(after)),
        *_figures("work per call", _work(before), _work(after), "{:.4g}"),
        *_facts("precision", _precision(before), _precision(after)),
        *_figures("weights moved, bytes", _moved(before), _moved(after), "{:,.0f}"),
        *_facts("calibration", _calibration(before), _calibration(after)),
        *_facts("decisions", _decisions(before), _decisions(after)),
        *_facts("gates", _gates(before), _gates(after)),
        *_facts("parity", _parity(before_report), _parity(after_report)),
        *_figures("median where compiled, ms", *speeds, "{:.2f}"),
        *_figures("size, bytes", _sizes(before), _sizes(after), "{:,.0f}"),
        *_facts("other bytes", *_other_bytes(before, after)),
        *_facts("tools", before.tools, after.tools),
    ]


def read_build_report(release: Path, manifest: Manifest) -> dict[str, Any] | None:
    """The build report beside a release, if it is there and of this very release."""
    path = release.parent / f"{release.name}.build.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    belongs = isinstance(report, dict) and report.get("release_id") == manifest.release_id
    return report if belongs else None


def _facts(section: str, before: Pairs, after: Pairs) -> list[Change]:
    return [
        Change(section, name, _words(before, name), _words(after, name))
        for name in _names(before, after)
        if before.get(name) != after.get(name)
    ]


def _figures(
    section: str, before: Mapping[str, float], after: Mapping[str, float], form: str
) -> list[Change]:
    """Numbers that differ, with their ratio."""
    changes = []
    for name in _names(before, after):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        ratio = f"x {new / old:.2f}" if old and new is not None else ""
        before_text, after_text = (
            _ABSENT if value is None else form.format(value) for value in (old, new)
        )
        changes.append(Change(section, name, before_text, after_text, ratio))
    return changes


def _names(before: Iterable[str], after: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*before, *after]))


def _words(pairs: Pairs, name: str) -> str:
    return str(pairs[name]) if name in pairs else _ABSENT


def _policy(manifest: Manifest) -> Pairs:
    facts = {"name": manifest.name, "target": manifest.target, "recipe": manifest.recipe}
    facts["security epoch"] = str(manifest.security_epoch)
    robot = _flat("robot", manifest.embodiment.model_dump(mode="json"))
    return facts | _flat("", manifest.policy.model_dump(mode="json")) | robot


def _graph(manifest: Manifest) -> Pairs:
    engines = manifest.engines
    facts: dict[str, object] = {"refiner form": engines.refiner.form}
    for name, engine in engines.by_name.items():
        facts[name] = f"{engine.kind}, {engine.provider}"
        kernels = Counter(
            layer.kernel
            for layer in manifest.layers
            if layer.name.startswith("planner.") == (name == "planner")
        )
        if kernels:
            facts[f"{name} products"] = ", ".join(f"{n} {kind}" for kind, n in kernels.items())
        for way, tensors in (("input", engine.inputs), ("output", engine.outputs)):
            for tensor in tensors:
                shape = " x ".join(map(str, tensor.shape))
                facts[f"{name} {way} {tensor.name}"] = f"{tensor.dtype} {shape}"
        if engine.compiled is not None:
            facts |= _flat(f"{name} engine", engine.compiled.model_dump(mode="json"))
        facts |= _flat(name, dict(engine.session_options))
    return facts | _flat("runtime", manifest.runtime.model_dump(mode="json"))


def _work(manifest: Manifest) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, engine in manifest.engines.by_name.items():
        work = engine.work
        if work is None:
            continue
        for number, tera in work.tera_operations.items():
            figures[f"{name}, 10^9 operations in {number}"] = 1e3 * tera
        figures[f"{name}, MB of weights read"] = work.weight_bytes / 1e6
        figures[f"{name}, MB of activations"] = work.activation_bytes / 1e6
    return figures


def _precision(manifest: Manifest) -> Pairs:
    """What every block runs in; where the engines do not tell, what was decided."""
    return {
        name: in_words(name, layers) for name, layers in layer_blocks(manifest.layers)
    } or _decided_layers(manifest)


def _decided_layers(manifest: Manifest) -> dict[str, str]:
    return {d.subject: d.choice for d in manifest.decisions if _of_a_layer(d)}


def _of_a_layer(decision: Decision) -> bool:
    return decision.stage == "quantise" and "." in decision.subject


def _moved(manifest: Manifest) -> dict[str, float]:
    """By one plan and one chunk."""
    return {f"in {one.precision}": one.moved_bytes for one in precision_shares(manifest.layers)}


def _calibration(manifest: Manifest) -> Pairs:
    """The table, each range by its layer; nothing where there is none."""
    found = manifest.calibration
    if found is None:
        return {}
    ranges = {
        f"{name} input": f"within {layer.input_amax:g}"
        for name, layer in found.layers.items()
        if layer.input_amax is not None
    }
    facts = {"dataset": found.dataset, "samples": found.sha256, "algorithm": found.algorithm}
    return {**facts, "frames": len(found.frames), **ranges}


def _decisions(manifest: Manifest) -> Pairs:
    """Without those on single layers: the precision they run in says more."""
    choices: dict[str, list[str]] = {}
    for decision in manifest.decisions:
        if not _of_a_layer(decision):
            choices.setdefault(f"{decision.stage}: {decision.subject}", []).append(decision.choice)
    return {name: _shortly(" ".join(parts)) for name, parts in choices.items()}


def _shortly(choice: str) -> str:
    """A choice as it is; of a long list, such as calibration frames, how many and which by hash."""
    if len(choice) <= _LONGEST:
        return choice
    digest = hashlib.sha256(choice.encode()).hexdigest()
    return f"{len(choice.split())} entries, sha256 {digest[:16]}"


def _gates(manifest: Manifest) -> Pairs:
    """Which stages were judged, and the limits of each metric over all of them."""
    gates: dict[str, object] = {}
    limits: dict[str, list[float]] = {}
    for check in manifest.parity.checks:
        gates[check.stage] = "gated"
        if check.threshold is not None:
            limits.setdefault(check.metric, []).append(check.threshold)
    for metric, values in limits.items():
        low, high = min(values), max(values)
        gates[metric] = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return gates


def _parity(report: Mapping[str, Any] | None) -> Pairs:
    """Measured values of the comparison over the whole chain, with their gates."""
    checks = report["checks"] if report else []
    return {
        check["metric"]: f"{check['value']:.4g} (gate {check['threshold']:g})"
        for check in checks
        if check["stage"].endswith("end to end") and check["value"] is not None
    }


def _speed(manifest: Manifest, report: Mapping[str, Any] | None) -> dict[str, float]:
    """Medians where each was compiled, of the refiner in the form that was released."""
    medians = report["medians_ms"] if report else {}
    planner, refiner = medians.get("planner"), medians.get(manifest.engines.refiner.form)
    if planner is None or refiner is None:
        return {}
    average = planner / manifest.policy.chunks_per_plan + refiner
    return {"planner": planner, "refiner": refiner, "planner / M + refiner": average}


def _sizes(manifest: Manifest) -> dict[str, float]:
    sizes = {name: member.size_bytes for name, member in sorted(manifest.members.items())}
    return {**sizes, "all": sum(sizes.values())}


def _other_bytes(before: Manifest, after: Manifest) -> tuple[Pairs, Pairs]:
    """Members of the same size but other content."""
    alike = [
        name
        for name, member in sorted(before.members.items())
        if name in after.members and after.members[name].size_bytes == member.size_bytes
    ]
    first, second = (
        {name: f"sha256 {manifest.members[name].sha256[:16]}" for name in alike}
        for manifest in (before, after)
    )
    return first, second


def _flat(name: str, value: object) -> dict[str, object]:
    """One fact per leaf; items of a list that have names go by them."""
    if isinstance(value, Mapping):
        items = {f"{name} {key}".strip(): item for key, item in value.items()}
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        items = {f"{name} {item['name']}": _without_name(item) for item in value}
    elif isinstance(value, list):
        return {name: ", ".join(map(str, value))}
    else:
        return {name: value}
    return {leaf: fact for key, item in items.items() for leaf, fact in _flat(key, item).items()}


def _without_name(item: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in item.items() if key != "name"}
