"""The public Python functions: what `libra_edge` exports besides `Policy`.

Each takes paths as `str` or `Path` and imports what it needs when it is called, so that a field
laptop without PyTorch can import them all.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from libra_edge.paths import StrPath

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from libra_edge.bundle.verify import Release
    from libra_edge.compiler.pipeline import Compiled
    from libra_edge.verification.result import Verification


def compile_checkpoint(
    checkpoint: StrPath,
    *,
    target: str = "cpu-x86_64",
    recipe: str | None = None,
    out: StrPath | None = None,
    name: str | None = None,
    data: StrPath | None = None,
    calibrate: StrPath | None = None,
    calibration_samples: int | None = None,
    auto_precision: bool = False,
    max_action_error: float | None = None,
    gates: StrPath | None = None,
    allow_loose: bool = False,
    form: Literal["loop", "unrolled"] | None = None,
    cache: StrPath | None = None,
    force: bool = False,
    samples: int | None = None,
    seed: int = 0,
    engine: str | None = None,
    engines_on_device: bool = False,
    random_weights: bool = False,
    robot: StrPath | None = None,
    tokenizer: StrPath | None = None,
    vlm_config: StrPath | None = None,
    security_epoch: int = 0,
    sign: StrPath | EllipticCurvePrivateKey | None = None,
    on_stage: Callable[[str, str], None] = lambda stage, note: None,
) -> Compiled:
    """Compile a trained checkpoint into a release; needs the extra `compile`.

    Nothing is written before every parity gate has passed. Sets PyTorch's intra-op threads to 1, so
    that golden vectors do not depend on the core count.

    Args:
        checkpoint: the checkpoint folder.
        target: name of a target (`libra-edge targets`).
        recipe: name of a recipe (`libra-edge recipes`); None takes the target's default.
        out: the release directory; None names it after release, target and recipe.
        name: the release's name; None takes the robot's.
        data: LeRobot dataset for the golden vectors and the gates; None makes up observations.
        calibrate: LeRobot dataset to find ranges on; needed by recipes that quantise.
        calibration_samples: how many of its frames; None as many as the recipe wants.
        auto_precision: keep the worst layers in high precision until the gates hold.
        max_action_error: with `auto_precision`, the gate of action errors as a fraction of each
            dimension's range, no larger than the recipe's; None takes the recipe's.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's; the manifest says so.
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations per gate; None as many as the recipe's gates need.
        seed: of the samples and their noise.
        engine: kind of the engines; None takes what the target prefers.
        engines_on_device: leave building the engines to the robot.
        random_weights: draw the policy's weights; the release is for measuring alone.
        robot: description of the robot, where the checkpoint does not hold one.
        tokenizer: a `tokenizer.json`, where the checkpoint only names one.
        vlm_config: folder with the configuration of the vision-language model, likewise.
        security_epoch: robots refuse a release whose key has signed a higher one.
        sign: private key to sign with: loaded, or the file of one without a passphrase.
        on_stage: called with a stage's name and what is going on, as it begins.

    Returns:
        The finished release: `path`, `manifest`, `checks`, and `medians_ms` by engine.

    Raises:
        LibraError: something about the request, the checkpoint or the disk does not fit.
        ParityError: a stage is not the policy any more; nothing was written.
    """
    from libra_edge.compiler.pipeline import compile_checkpoint as compile_request
    from libra_edge.compiler.request import Request

    request = Request(
        Path(checkpoint),
        target=target,
        recipe=recipe,
        out=_path(out),
        name=name,
        data=_path(data),
        calibrate=_path(calibrate),
        calibration_samples=calibration_samples,
        auto_precision=auto_precision,
        max_action_error=max_action_error,
        gates=_path(gates),
        allow_loose=allow_loose,
        form=form,
        cache=_path(cache),
        force=force,
        samples=samples,
        seed=seed,
        engine=engine,
        engines_on_device=engines_on_device,
        random_weights=random_weights,
        robot=_path(robot),
        tokenizer=_path(tokenizer),
        vlm_config=_path(vlm_config),
        security_epoch=security_epoch,
        sign=Path(sign) if isinstance(sign, str | PathLike) else sign,
    )
    return compile_request(request, on_stage)


def verify_release(
    release: StrPath,
    checkpoint: StrPath | None = None,
    *,
    data: StrPath | None = None,
    samples: int | None = None,
    seed: int = 1,
    golden_only: bool = False,
    quick: bool = False,
    gates: StrPath | None = None,
    allow_loose: bool = False,
    calibrate: StrPath | None = None,
    cache: StrPath | None = None,
    expect_recipe: str | None = None,
    expect_target: str | None = None,
    expect_checkpoint: str | None = None,
    max_latency_ms: float | None = None,
    time_limit_s: float = 120.0,
    robot: StrPath | None = None,
    tokenizer: StrPath | None = None,
    vlm_config: StrPath | None = None,
    reference_python: StrPath | None = None,
    engines: StrPath | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Verification:
    """Measure whether a release is still the policy; `checkpoint` needs the extra `compile`.

    Args:
        release: release directory or `.libra` file.
        checkpoint: what it was compiled from; None leaves those comparisons not measured.
        data: LeRobot dataset to take observations from; None makes them up.
        samples: observations per comparison; None takes 200, or 24 if `quick`.
        seed: of the choice of observations, and of the noise.
        golden_only: ask for bytes and golden vectors alone; nothing else counts as missing.
        quick: ask for what needs no compiling, on fewer samples; not a release gate.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's.
        calibrate: what a quantised release was calibrated on, to compile its stages again.
        cache: the compiler's cache; None takes the user's.
        expect_recipe: what the release has to be, by name; None takes any.
        expect_target: the same of its target.
        expect_checkpoint: the sha256 of what it has to be compiled from, or its first 8 digits.
        max_latency_ms: longest median of a chunk, the planner's share included, in milliseconds.
        time_limit_s: of each answer of the release's code, in seconds.
        robot: description of the robot, where the checkpoint does not hold one.
        tokenizer: a `tokenizer.json`, where the checkpoint only names one.
        vlm_config: folder with the configuration of the vision-language model, likewise.
        engines: folder of engines that were built on this machine (`libra-edge provision`), to run
            in the place of the release's own.
        reference_python: interpreter of an environment with LeRobot: what it gives for the same
            observations and noise stands first in the chain.
        on_stage: called with each comparison's name before it is made.

    Returns:
        Every check with its verdict; `exit_code` is 0 only where all that was asked for passed.

    Raises:
        IntegrityError: the release is not the bytes its manifest says.
        InputError: the release, checkpoint, dataset or gates cannot be read or used.
    """
    from libra_edge.verification.request import Request
    from libra_edge.verification.verify import verify_release as verify_request

    request = Request(
        Path(release),
        _path(checkpoint),
        _path(data),
        samples=samples,
        seed=seed,
        golden_only=golden_only,
        quick=quick,
        gates=_path(gates),
        allow_loose=allow_loose,
        calibrate=_path(calibrate),
        cache=_path(cache),
        expect_recipe=expect_recipe,
        expect_target=expect_target,
        expect_checkpoint=expect_checkpoint,
        max_latency_ms=max_latency_ms,
        time_limit_s=time_limit_s,
        robot=_path(robot),
        tokenizer=_path(tokenizer),
        vlm_config=_path(vlm_config),
        reference_python=_path(reference_python),
        engines=_path(engines),
    )
    return verify_request(request, on_stage)


def open_release(path: StrPath) -> Release:
    """Check every byte of a release and hand out its directory and manifest.

    A `.libra` file is unpacked into the user's cache folder, and what lies there is checked each
    time.

    Args:
        path: release directory or `.libra` file.

    Returns:
        The release: `path`, `manifest`, and `member(name)`, the file of a member.

    Raises:
        InputError: there is no release at `path`.
        IntegrityError: a member is missing, unexpected or changed, or the manifest is not valid.
        IncompatibleError: the manifest has another schema version.
    """
    from libra_edge.bundle.verify import open_release as open_path

    return open_path(Path(path))


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
