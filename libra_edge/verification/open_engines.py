"""A release's engines and plain graphs on this machine, as far as it has what they need."""

from __future__ import annotations

from importlib.util import find_spec

from libra_edge.bundle.compatibility import CPU, device_for, mismatches, needs_of
from libra_edge.bundle.members import APART
from libra_edge.bundle.verify import Release
from libra_edge.engines import engine, kinds
from libra_edge.engines.session import EnginePair
from libra_edge.policy.executor import Engines


def engines_run_here(release: Release) -> bool:
    """Whether this machine has what runs the release's engines from Python."""
    facts = release.manifest.engines.by_name.values()
    known = find_spec("onnxruntime") is not None and {fact.kind for fact in facts} <= set(kinds())
    return known and all(engine(fact.kind).is_available(fact.provider) for fact in facts)


def graphs_run_here(release: Release) -> bool:
    """Whether this machine can simulate a release by its plain graphs.

    Not those whose weights lie beside them: they are simulated while compiling, and take minutes.
    """
    apart = release.manifest.members.keys() & APART.keys()
    return find_spec("onnxruntime") is not None and not apart


def load_engines(release: Release) -> Engines | None:
    """The release's engines as Python's ONNX Runtime runs them; None where it is not there."""
    if not engines_run_here(release):
        return None
    loaded = {
        name: engine(fact.kind).load(
            release.member(fact.member).read_bytes(), fact.provider, fact.session_options
        )
        for name, fact in release.manifest.engines.by_name.items()
    }
    return EnginePair(loaded.get("planner"), loaded["refiner"])


def load_graphs(release: Release) -> Engines | None:
    """The plain graphs of a release as written, on the CPU: a simulation of what it runs."""
    if not graphs_run_here(release):
        return None
    kind = engine("onnxruntime")
    loaded = {
        name: kind.load(
            release.member(f"engines/{name}.onnx").read_bytes(), CPU, {}, optimize=False
        )
        for name in release.manifest.engines.by_name
    }
    return EnginePair(loaded.get("planner"), loaded["refiner"])


def elsewhere(release: Release) -> str:
    """Why a release does not run on this machine, in a sentence."""
    found = mismatches(needs_of(release.manifest), device_for(release.manifest))
    return found[0].sentence if found else "this machine has no ONNX Runtime for Python"
