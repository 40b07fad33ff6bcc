"""What changed from one release to another, from their manifests and build reports alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libra_edge.bundle.manifest import Manifest

Pairs = Mapping[str, object]
_ABSENT = "–"


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
    """Every fact that differs, in the order a reviewer asks: policy, engines, parity, speed, size.

    Args:
        before: the one manifest.
        after: the other.
        before_report: the first one's `NAME.build.json`, where there is one.
        after_report: the other's.
    """
    return [
        *_facts("policy", _policy(before), _policy(after)),
        *_facts("engines", _engines(before), _engines(after)),
        *_facts("decisions", _decisions(before), _decisions(after)),
        *_facts("gates", _gates(before), _gates(after)),
        *_figures("parity", _parity(before_report), _parity(after_report), "{:.4g}"),
        *_figures("median, ms", _medians(before_report), _medians(after_report), "{:.2f}"),
        *_figures("size, bytes", _sizes(before), _sizes(after), "{:,.0f}"),
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
    robot = manifest.embodiment.model_dump(mode="json")
    facts = {"name": manifest.name, "target": manifest.target, "recipe": manifest.recipe}
    return facts | manifest.policy.model_dump(mode="json") | {f"robot {k}": robot[k] for k in robot}


def _engines(manifest: Manifest) -> Pairs:
    engines = manifest.engines
    facts: dict[str, object] = {"refiner form": engines.refiner.form}
    for name, entry in (("planner", engines.planner), ("refiner", engines.refiner)):
        facts[name] = f"{entry.kind}, {entry.provider}"
        facts[f"{name} options"] = dict(entry.session_options)
    return facts | {"runtime": manifest.runtime.model_dump(mode="json")}


def _decisions(manifest: Manifest) -> Pairs:
    return {f"{d.stage}: {d.subject}": d.choice for d in manifest.decisions}


def _gates(manifest: Manifest) -> Pairs:
    gates: dict[str, object] = {}
    for check in manifest.parity.checks:
        gates[f"{check.stage}: {check.metric}"] = check.threshold
    return gates


def _parity(report: Mapping[str, Any] | None) -> dict[str, float]:
    """Measured values of the comparison over the whole chain."""
    checks = report["checks"] if report else []
    return {
        check["metric"]: check["value"]
        for check in checks
        if check["stage"].endswith("end to end") and check["value"] is not None
    }


def _medians(report: Mapping[str, Any] | None) -> dict[str, float]:
    return dict(report["medians_ms"]) if report else {}


def _sizes(manifest: Manifest) -> dict[str, float]:
    return {name: member.size_bytes for name, member in sorted(manifest.members.items())}
