"""What the caller expects a release to be, whatever it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libra_edge.bundle.manifest import Manifest
from libra_edge.parity.gates import Check
from libra_edge.verification.claims.held import claim

if TYPE_CHECKING:
    from libra_edge.verification.claims.recipe import Shown


def compare_expectations(
    manifest: Manifest,
    shown: Shown | None,
    *,
    recipe: str | None,
    target: str | None,
    checkpoint: str | None,
) -> list[Check]:
    """What the caller expects the release to be, whatever it says."""
    found = manifest.policy.checkpoint_sha256
    checks = []
    if recipe is not None:
        fits = manifest.recipe == recipe and (shown is None or shown.fits(recipe))
        words = f"expected {recipe!r}; the manifest says {manifest.recipe!r}"
        if shown is not None:
            words += f", the graphs have {shown.words}"
        checks.append(claim("recipe", fits, words, "expected"))
    if target is not None:
        words = f"expected {target!r}; the manifest says {manifest.target!r}"
        checks.append(claim("target", manifest.target == target, words, "expected"))
    if checkpoint is not None:
        # Eight digits are enough to name one, as in `inspect`.
        fits = found.startswith(checkpoint.lower()) and len(checkpoint) >= 8
        words = f"expected {checkpoint}; the manifest says {found}"
        checks.append(claim("checkpoint", fits, words, "expected"))
    return checks
