"""Every claim of a manifest that can be recomputed, recomputed; the others are named.

What a release says of itself is under test: values come from its graphs, from the checkpoint and
from the verifier's own targets and recipes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from libra_edge.binding.abi import ABI_VERSION
from libra_edge.bundle.engine_facts import Layer, PlannerEngine, RefinerEngine
from libra_edge.bundle.manifest import Manifest
from libra_edge.bundle.members import COMPILED
from libra_edge.catalog import Target, list_targets
from libra_edge.compiler.engines.read_back import layer_names
from libra_edge.compiler.quantization.assign import rest_subject
from libra_edge.engines import engine, kinds
from libra_edge.engines.base import Product
from libra_edge.limits import Limits
from libra_edge.verification.claims.calibrated import SUBJECTS as CALIBRATION_SUBJECTS
from libra_edge.verification.claims.graphs import GraphFacts, Weight
from libra_edge.verification.claims.held import Claims
from libra_edge.verification.claims.recipe import Shown, kept

if TYPE_CHECKING:
    from libra_edge.policy.imported import AnyCheckpoint

AUTO_PRECISION = "auto-precision"
# What a decision may be about besides layers.
_SUBJECTS = {
    "build": {"engine kind", "refiner form"},
    "check": {"native runtime", "parity"},
    "calibrate": CALIBRATION_SUBJECTS,
    "quantise": {AUTO_PRECISION},
}
_CPU_ENTRY = "onnxruntime"
_LATER = frozenset({"optimization.disable_specified_optimizers"})
# Engines turn stored weights into floats, and fill up channels of convolutions.
MOST_PADDED = 16


def examine_manifest(manifest: Manifest, shown: Shown, truth: AnyCheckpoint | None) -> Claims:
    """Hold a manifest against what its graphs show.

    Args:
        manifest: what the release says of itself.
        shown: what its plain graphs are.
        truth: its checkpoint, or None: then what takes one is left unchecked.
    """
    claims = Claims()
    for name, reason in shown.unreadable.items():
        claims.judge(f"{name} graph", False, f"engines/{name}.onnx: {reason}")
    _target(claims, manifest)
    if shown.whole:
        _recipe(claims, manifest, shown)
        _rest(claims, manifest, shown)
        _form(claims, manifest, shown)
        _layers(claims, manifest, shown)
        _decisions(claims, manifest, shown)
        _calibration(claims, manifest, shown)
    _left(claims, manifest, truth)
    return claims


def _recipe(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """The recipe, and the layers that it would have rounded."""
    named = ", ".join(recipe.name for recipe in shown.recipes) or "none that is known here"
    claims.judge(
        "recipe",
        shown.fits(manifest.recipe),
        f"the manifest says {manifest.recipe!r}; the graphs have {shown.words}: {named}",
    )
    unnamed = [weight for facts in shown.graphs.values() for weight in facts.unnamed]
    words = f"products with weights of no layer: {', '.join(sorted(set(unnamed))[:4])}"
    claims.judge("weights of layers", not unnamed, words)
    if not shown.fits(manifest.recipe):
        return
    told = {d.subject for d in manifest.decisions if d.stage == "quantise"}
    high = kept(shown.best(manifest.recipe), shown.precisions)
    silent = [name for name in high if name not in told]
    words = f"in high precision without a decision: {', '.join(silent[:6])}"
    claims.judge("layers of the recipe", not silent, words)


def _rest(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """The floats of what is not rounded; where no decision names them, they are the recipe's."""
    recipe = shown.best(manifest.recipe)
    usual = "fp16" if recipe.precision == "fp16" else "fp32"
    told = {d.subject: d.choice for d in manifest.decisions if d.stage == "quantise"}
    kind = (manifest.provision or manifest.engines.refiner).kind
    known = {"fp32", engine(kind).qdq.rest} if kind in kinds() else {"fp32"}
    for name, facts in shown.graphs.items():
        claimed = told.get(rest_subject(name), usual)
        claims.held(rest_subject(name), claimed, _shown_rest(facts) or claimed)
        if recipe.quantizes:
            words = f"{kind} engines are given {' or '.join(sorted(known))}, not {claimed!r}"
            claims.judge(f"{rest_subject(name)} on its engines", claimed in known, words)


def _shown_rest(facts: GraphFacts) -> str:
    return " and ".join(sorted(facts.rest))


def _form(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """The refiner's form and its denoising steps."""
    refiner, policy = shown.graphs["refiner"], manifest.policy
    form = "loop" if refiner.loops else "unrolled"
    claims.held("refiner form", manifest.engines.refiner.form, form)
    most = max((weight.runs for weight in refiner.weights.values()), default=0)
    if most and policy.denoise_steps:
        claims.held("denoising steps", policy.denoise_steps, max([most, *refiner.loops]))
    if not policy.denoise_steps:
        claims.held("iterations of loops", refiner.loops, [], "a policy without noise has")
    for name, facts in shown.graphs.items():
        if name != "refiner":
            words = f"it has loops of {facts.loops} iterations"
            claims.judge(f"{name} without a loop", not facts.loops, words)


def _target(claims: Claims, manifest: Manifest) -> None:
    """Target, native code, engine kinds, providers and their options."""
    target = list_targets().get(manifest.target)
    if target is None:
        claims.judge("target", False, f"target {manifest.target!r} is not known here")
        return
    claims.held("architecture", manifest.runtime.arch, target.arch, "the target")
    claims.held("C library", manifest.runtime.glibc, target.glibc, "the target")
    claims.held("ABI version", manifest.runtime.abi_version, ABI_VERSION, "this libra-edge has")
    for name, facts in manifest.engines.by_name.items():
        _engine(claims, manifest, name, facts, target)
    wanted = manifest.provision
    pairs = {(entry.kind, entry.provider) for entry in target.engines}
    if wanted is not None:
        fits = (wanted.kind, wanted.provider) in pairs
        claims.judge("engines built on the robot", fits, f"target {target.name} has no such")
    _device(claims, manifest, target)


def _engine(
    claims: Claims,
    manifest: Manifest,
    name: str,
    facts: PlannerEngine | RefinerEngine,
    target: Target,
) -> None:
    entry = next(
        (e for e in target.engines if (e.kind, e.provider) == (facts.kind, facts.provider)), None
    )
    plain = facts.kind == _CPU_ENTRY and manifest.provision is not None
    words = f"target {target.name} has no {facts.kind} on {facts.provider}"
    claims.judge(f"{name} engine", entry is not None or plain, words)
    if facts.kind not in kinds():
        claims.judge(f"{name} engine kind", False, f"{facts.kind!r} is not known here")
    known = dict(entry.session_options) if entry is not None else {}
    # What an engine kind adds for the numbers of a graph, and no target may set otherwise.
    added = {"session.qdq_matmulnbits_accuracy_level": "1"}
    wanted = known | {k: v for k, v in added.items() if k in facts.session_options}
    # Set for speed alone, and not by earlier versions of the targets.
    wanted = {k: v for k, v in wanted.items() if k in facts.session_options or k not in _LATER}
    claims.held(f"{name} session options", dict(facts.session_options), wanted, "the target")
    if (facts.compiled is None) == (facts.member in COMPILED):
        claims.judge(f"{name} engine", False, "it is compiled and says not by what, or the reverse")
    if facts.compiled is not None and facts.compiled.compute_capability is not None:
        found = facts.compiled.compute_capability
        claims.held(f"{name} compute capability", found, target.compute_capability, "the target")


def _device(claims: Claims, manifest: Manifest, target: Target) -> None:
    needs = manifest.device
    if target.compute_capability is None:
        claims.judge("device", needs is None, f"target {target.name} has no accelerator")
        return
    if needs is None:
        claims.leave("what the device needs: the manifest does not say")
        return
    versions = {name: v for name, v in vars(target.software).items() if v is not None}
    wanted = {"compute_capability": target.compute_capability, "versions": versions}
    claims.held("device", needs.model_dump(include=set(wanted)), wanted, "the target")
    claims.leave(f"device memory of {needs.memory_bytes} bytes")


def _layers(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """The table of layers; exact where the engines are the graphs."""
    if not manifest.layers:
        claims.leave("layers and what they run in: the manifest has no table of them")
        return
    weights = {n: w for facts in shown.graphs.values() for n, w in facts.weights.items()}
    told = {layer.name for layer in manifest.layers}
    products = (Product(f"{name}.weight", "", "", 0, 1) for name in told)
    names = {name for product in products for name in layer_names(product)}
    absent = sorted(names - shown.precisions.keys())
    claims.judge("layers exist", not absent, f"the graphs have no {', '.join(absent[:6])}")
    if manifest.engines.refiner.kind != _CPU_ENTRY:
        claims.leave("kernels and formats of the compiled engines' layers")
        return
    missing = sorted(weights.keys() - told)
    claims.judge("layers complete", not missing, f"the table lacks {', '.join(missing[:6])}")
    others = manifest.provision is not None
    wrong = list(_wrong_layers(manifest.layers, weights, for_others=others))
    claims.judge("layers table", not wrong, "; ".join(wrong[:6]))
    claims.leave("kernels of the layers")


def _wrong_layers(
    layers: Sequence[Layer], weights: Mapping[str, Weight], *, for_others: bool
) -> Iterator[str]:
    """Rows of the table that are not what the graph holds.

    for_others: the robot builds its engines, and the CPU's kernels for integers were not wanted.
    """
    kernels = engine(_CPU_ENTRY).kernels
    runs: Counter[str] = Counter()
    for layer in layers:
        runs[layer.name] += layer.runs
    for layer in layers:
        if (weight := weights.get(layer.name)) is None:
            continue
        found = str(weight.precision)
        # What no kernel has to take is turned into floats first, at the latest where it is loaded.
        # A CPU multiplies 16-bit floats as 32-bit ones.
        same = {found, str(weight.precision.beside("fp32"))}
        if for_others or found not in kernels:
            rounded = weight.precision.rounds_inputs and not for_others
            same = {"fp32"} if rounded else {"fp32", *same}
        least = weight.stored_bytes
        if layer.precision not in same or runs[layer.name] != weight.runs:
            yield (
                f"{layer.name} in {layer.precision} {runs[layer.name]} times, the graph has it in "
                f"{found} {weight.runs} times"
            )
        elif not least <= layer.weight_bytes <= MOST_PADDED * least:
            yield f"{layer.name} of {layer.weight_bytes} bytes, the graph stores {least}"


def _decisions(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """Decisions about what is there, with what came of it."""
    wanted = {
        ("build", "engine kind"): (manifest.provision or manifest.engines.refiner).kind,
        ("build", "refiner form"): "loop" if shown.graphs["refiner"].loops else "unrolled",
        **{("quantise", n): str(p) for n, p in shown.precisions.items() if p is not None},
        **{("quantise", rest_subject(n)): _shown_rest(g) for n, g in shown.graphs.items()},
    }
    wrong, left = [], []
    for one in manifest.decisions:
        place = (one.stage, one.subject)
        if place in wanted:
            if one.choice != wanted[place]:
                wrong.append(f"{one.subject}: {one.choice!r}, the graphs have {wanted[place]!r}")
        elif one.subject in _SUBJECTS.get(one.stage, ()):
            left.append(one.subject)
        else:
            wrong.append(f"{one.stage}: the graphs have no {one.subject!r}")
    claims.judge("decisions", not wrong, "; ".join(wrong[:6]))
    for subject in sorted(set(left) - CALIBRATION_SUBJECTS):
        claims.leave(f"decision about {subject}")


def _calibration(claims: Claims, manifest: Manifest, shown: Shown) -> None:
    """Which layers came of it; what it was calibrated on is `examine_calibration`'s."""
    table = manifest.calibration
    quantizes = any(r.quantizes for r in shown.recipes)
    if table is None:
        if quantizes:
            claims.leave("calibration: the manifest has no table of it")
        return
    claims.judge("calibration", quantizes, "the graphs hold nothing that is calibrated")
    if not quantizes:
        return
    claims.held("calibration algorithm", table.algorithm, shown.best(manifest.recipe).algorithm)
    told = {name: layer.precision for name, layer in table.layers.items()}
    found = {name: str(p) for name, p in shown.precisions.items()}
    claims.held("calibrated layers", told, {n: found.get(n) for n in (*told, *found)})


def _left(claims: Claims, manifest: Manifest, truth: AnyCheckpoint | None) -> None:
    """Claims that nothing here can recompute."""
    unknown = sorted({gate.name for gate in manifest.gates} - Limits.model_fields.keys())
    claims.judge("gates", not unknown, f"there is no gate {', '.join(unknown)}")
    claims.leave(
        f"parity recorded when it was compiled ({manifest.parity.verdict}, "
        f"{len(manifest.parity.checks)} checks)"
    )
    claims.leave("versions of the tools that compiled it")
    if truth is None:
        claims.leave("policy, robot and work (they need --checkpoint CHECKPOINT)")
    for name, facts in manifest.engines.by_name.items():
        if facts.compiled is not None:
            claims.leave(f"compiler, sizes and workspace of the {name} engine")
