"""The contract of a release field by field, and its work, held against the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libra_edge.bundle.engine_facts import TensorSpec, Work
from libra_edge.bundle.manifest import Manifest, PolicyFacts
from libra_edge.catalog import HIGH, load_recipe
from libra_edge.engines import engine, kinds
from libra_edge.engines.base import QdqForm
from libra_edge.parity.gates import Check
from libra_edge.policy.config import Embodiment
from libra_edge.verification.claims.held import Claims, claim, differences, differing
from libra_edge.verification.claims.recipe import Shown

if TYPE_CHECKING:
    from libra_edge.policy.imported import AnyCheckpoint

STAGE = "checkpoint"
# Of a graph's own operations to its policy's work, and of the numbers that its other operators
# make to those of the graph compiled again. Integer image stems take a third more operations than
# the convolutions they stand for, an Erf written out makes a dozen numbers for one; work done twice
# is beyond both.
MOST_OPERATIONS = 1.6
_WHO = "the checkpoint's"


def compare_contract(manifest: Manifest, truth: AnyCheckpoint) -> list[Check]:
    """Time structure and robot, each field by its name and with both values."""
    from libra_edge.compiler.release.facts import policy_facts

    config = truth.config
    pairs: list[tuple[str, PolicyFacts | Embodiment, PolicyFacts | Embodiment]] = [
        ("policy", manifest.policy, policy_facts(config, truth.sha256)),
        ("robot", manifest.embodiment, config.embodiment),
    ]
    checks = []
    for metric, told, found in pairs:
        lines = differences(told.model_dump(), found.model_dump(), metric)
        words = differing(lines, _WHO)
        checks.append(claim(metric, not lines, words, STAGE))
    random = differences(manifest.random_weights, truth.random_weights, "random_weights")
    checks.append(claim("random weights", not random, differing(random, _WHO), STAGE))
    return checks


def examine_engines(manifest: Manifest, shown: Shown, truth: AnyCheckpoint) -> Claims:
    """Inputs, outputs and work of both engines, as the checkpoint has them."""
    claims = Claims()
    for name, tensors in _tensors(truth).items():
        facts = manifest.engines.by_name.get(name)
        if facts is None:
            continue
        for what in ("inputs", "outputs"):
            told = {t.name: t.model_dump(exclude={"name"}) for t in getattr(facts, what)}
            found = {t.name: t.model_dump(exclude={"name"}) for t in tensors[what]}
            claims.held(f"{name} {what}", told, found, _WHO)
    if shown.whole:
        _work(claims, manifest, shown, truth)
    return claims


def _tensors(truth: AnyCheckpoint) -> dict[str, dict[str, list[TensorSpec]]]:
    config, robot = truth.config, truth.config.embodiment
    steps = config.observation_steps
    back = (steps,) if steps > 1 else ()

    def spec(name: str, dtype: Any, *shape: int) -> TensorSpec:
        return TensorSpec(name=name, dtype=dtype, shape=shape)

    images = spec("images", "uint8", *back, *robot.image_shape)
    state = spec("state", "float32", *back, config.state_dim)
    words = []
    if config.instruction_length:
        words = [spec("instruction", "int64", config.instruction_length)]
    noise = [spec("noise", "float32", *config.noise_shape)] if config.noise_shape[0] else []
    actions = [spec("actions", "float32", config.rows, config.action_dim)]
    if not config.plans:
        inputs = [images, *words, state, *noise]
        return {"refiner": {"inputs": inputs, "outputs": actions}}
    plan, chunk = (config.plan_steps, config.action_dim), (config.chunk, config.action_dim)
    planner = {
        "inputs": [images, *words, state],
        "outputs": [spec("intent", "int32", *plan), spec("margin", "float32", *plan)],
    }
    inputs = [images, state, spec("intent", "int32", *chunk), *noise]
    return {"planner": planner, "refiner": {"inputs": inputs, "outputs": actions}}


def _work(claims: Claims, manifest: Manifest, shown: Shown, truth: AnyCheckpoint) -> None:
    """What the manifest says of work, and what the graphs themselves do."""
    from libra_edge.compiler.work.count import count
    from libra_edge.policy.config import PolicyConfig

    if not isinstance(truth.config, PolicyConfig):
        claims.leave("work of the engines: it is counted for policies of Libra Edge's own alone")
        return
    recipe = shown.best(manifest.recipe)
    kind = (manifest.provision or manifest.engines.refiner).kind
    form = engine(kind).qdq if kind in kinds() else QdqForm()
    precisions = {name: p or HIGH for name, p in shown.precisions.items()}
    counted = count(truth.config, load_recipe(recipe.name), form, precisions)
    for name, found in (("planner", counted.planner), ("refiner", counted.refiner)):
        told: Work | None = manifest.engines.by_name[name].work
        if told is None:
            claims.leave(f"work of the {name}: the manifest does not say")
        else:
            claims.held(f"{name} work", told.model_dump(), found.model_dump(), "counted")
        does = shown.graphs[name].operations
        needs = 1e12 * sum(found.tera_operations.values())
        claims.judge(
            f"{name} operations",
            does <= MOST_OPERATIONS * needs,
            f"the graph does {does:.3g} operations, the policy takes {needs:.3g}",
        )
