"""The plain graphs of a release beside those that its checkpoint gives when compiled again."""

from __future__ import annotations

from libra_edge.catalog import load_recipe
from libra_edge.parity.gates import FUSED, Check, compare, run_engines
from libra_edge.verification.claims.held import claim
from libra_edge.verification.recompile import Trained
from libra_edge.verification.subject import Subject

STAGE = f"graphs, as written vs {FUSED}"
# An activation function written out makes a dozen numbers where one operator made one.
MOST_ELEMENTS = 3.0


def examine_compiled_again(subject: Subject) -> list[Check]:
    """How much the graphs compute, and what: nothing where they were not compiled again."""
    trained, shown = subject.trained, subject.shown
    if trained.front is None or shown is None or not shown.whole:
        return []
    from libra_edge.verification.claims.graphs import NotReadable, read_graph

    front = trained.front
    ours = {"refiner": front.refiners.get(subject.manifest.engines.refiner.form, b"")}
    if front.planner is not None:
        ours["planner"] = front.planner
    checks = []
    for name, content in ours.items():
        try:
            needed = read_graph(content).elements
        except NotReadable:
            continue
        if name not in shown.graphs:
            continue
        made = shown.graphs[name].elements
        words = f"the graph makes {made:.3g} numbers besides its products, ours {needed:.3g}"
        few = made <= MOST_ELEMENTS * needed
        checks.append(claim(f"{name} numbers", few, words, STAGE))
    return checks + _as_written(subject, trained)


def _as_written(subject: Subject, trained: Trained) -> list[Check]:
    """Rounded graphs as they are written: the same integers and scales give the same numbers.

    The recipe's own gates would let a fault pass that is as small as its rounding.
    """
    graphs = subject.graphs()
    if not subject.recipe.quantizes or graphs is None:
        return []
    subject.on_stage(STAGE)
    samples, (_, fused) = subject.samples, trained.stages[-1]
    reference = run_engines(fused, samples)
    found = run_engines(graphs, samples, reference.intent)
    return compare(STAGE, reference, found, subject.dims, load_recipe("fp32").gates)
