"""What a release says of itself, examined: claims, contract, and what the caller expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libra_edge.bundle.verify import Release
from libra_edge.catalog import list_recipes
from libra_edge.limits import Limits
from libra_edge.parity.gates import Check
from libra_edge.verification.claims.materials import examine_materials
from libra_edge.verification.subject import Subject, can_read_graphs

if TYPE_CHECKING:
    from libra_edge.verification.claims.recipe import Shown

UNREAD = "every claim of the manifest: reading graphs takes libra-edge[compile]"


def read_shown_here(release: Release) -> tuple[Shown | None, Limits, str]:
    """What the graphs show, the limits that this sets, and the recipe they are of.

    Where nothing here reads graphs, the recipe is the manifest's word.
    """
    recipes = list_recipes()
    if not can_read_graphs():
        claimed = recipes.get(release.manifest.recipe, recipes["fp32"])
        return None, claimed.gates, claimed.name
    from libra_edge.verification.claims.recipe import read_shown, strictest

    shown = read_shown(release)
    limits = strictest(shown.recipes) or recipes["fp32"].gates
    return shown, limits, shown.best(release.manifest.recipe).name


def examine_claims(subject: Subject) -> list[Check]:
    """Hold the manifest against graphs, checkpoint and the verifier's own catalog."""
    from libra_edge.verification.claims.expected import compare_expectations

    manifest, shown, request = subject.manifest, subject.shown, subject.request
    expected = compare_expectations(
        manifest,
        shown,
        recipe=request.expect_recipe,
        target=request.expect_target,
        checkpoint=request.expect_checkpoint,
    )
    expected += examine_materials(subject.release)
    if shown is None:
        subject.unchecked.append(UNREAD)
        return expected
    subject.on_stage("claims of the manifest")
    from libra_edge.verification.claims.contract import compare_contract, examine_engines
    from libra_edge.verification.claims.manifest import examine_manifest

    claims = examine_manifest(manifest, shown, subject.truth)
    checks = list(claims.checks)
    subject.unchecked += claims.unchecked
    if subject.truth is not None:
        engines = examine_engines(manifest, shown, subject.truth)
        subject.unchecked += engines.unchecked
        checks = [*compare_contract(manifest, subject.truth), *checks, *engines.checks]
    return [*expected, *checks]
