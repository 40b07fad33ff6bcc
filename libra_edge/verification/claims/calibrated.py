"""What a release says it was calibrated on, held against calibrating again."""

from __future__ import annotations

from libra_edge.parity.gates import Check
from libra_edge.verification.claims.held import Claims
from libra_edge.verification.request import Request
from libra_edge.verification.subject import Subject

SUBJECTS = {"calibration data", "calibration frames (episode:step)"}
_WHAT = "calibration data, frames and ranges"


def examine_calibration(subject: Subject) -> list[Check]:
    """Dataset, samples, frames and ranges, and the decisions that name them.

    Where nothing was calibrated again, they are named as not checked, with what that takes.
    """
    claims, recorded = Claims(), subject.manifest.calibration
    quantizes = subject.shown is not None and subject.recipe.quantizes
    if recorded is None or not quantizes:
        return []
    again = subject.trained.calibrated
    if again is None:
        subject.unchecked.append(f"{_WHAT} ({_why_not(subject.request)})")
        return []
    from libra_edge.compiler.release.decisions import calibration_decisions
    from libra_edge.compiler.release.facts import input_amax

    data, who = again.data, "calibrating again gives"
    claims.held("calibration dataset", recorded.dataset, data.source, who)
    claims.held("calibration samples", recorded.sha256, data.sha256, who)
    frames = [list(frame) for frame in recorded.frames]
    claims.held("calibration frames", frames, [list(frame) for frame in data.frames], who)
    told = {name: layer.input_amax for name, layer in recorded.layers.items()}
    ranges, precisions = again.quantized.ranges, again.quantized.precisions
    found = {name: input_amax(ranges.get(name), p) for name, p in precisions.items()}
    claims.held("calibration ranges", told, found, who)
    named = tuple(one for one in subject.manifest.decisions if one.subject in SUBJECTS)
    same = named == calibration_decisions(data)
    claims.judge("decisions about calibration", same, "they name other data than was used")
    return claims.checks


def _why_not(request: Request) -> str:
    """What was not asked for, in words."""
    if request.golden_only or request.quick:
        option = "--golden-only" if request.golden_only else "--quick"
        return f"{option} calibrates nothing again"
    missing = [
        words
        for given, words in (
            (request.checkpoint, "--checkpoint CHECKPOINT"),
            (request.calibrate, "--calibrate DATASET"),
        )
        if given is None
    ]
    return f"they need {' and '.join(missing)}" if missing else "the checkpoint is another one"
