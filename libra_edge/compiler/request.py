"""What to compile: as it was asked for, and with everything that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from libra_edge.catalog import Recipe, Target
from libra_edge.compiler.cache import StageCache
from libra_edge.compiler.engines.plan import EnginePlan
from libra_edge.compiler.graphs.fuse import FORMS, HEAVY_FORMS, Form
from libra_edge.compiler.quantization.calibration_data import CalibrationData
from libra_edge.limits import Gates, Limits
from libra_edge.parity.samples import Sample
from libra_edge.paths import to_paths
from libra_edge.policy.checkpoint import Checkpoint
from libra_edge.policy.imported import AnyCheckpoint


@dataclass(frozen=True)
class Request:
    """What to compile.

    Args:
        checkpoint: the checkpoint folder.
        target: name of a target.
        recipe: name of a recipe; None takes the target's default.
        out: the release directory; None names it after release, target and recipe.
        name: the release's name; None takes the robot's.
        data: LeRobot dataset for the golden vectors and the gates; None makes up observations.
        calibrate: LeRobot dataset to find ranges on; needed by recipes that quantise.
        calibration_samples: how many of its frames; None as many as the recipe wants.
        auto_precision: keep the worst layers of the recipe in high precision until the gates hold.
        max_action_error: then the gate of action errors, a fraction of each dimension's range, no
            larger than the recipe's; None takes the recipe's.
        gates: TOML file of limits that replace the recipe's; None takes those.
        allow_loose: take limits that are looser than the recipe's; the manifest says so.
        form: the refiner's form; None keeps the faster.
        cache: folder of stage outputs; None takes the user's cache folder.
        force: replace a release that stands at `out`.
        samples: observations every gate is measured on; None as many as the recipe's gates need.
        seed: of the samples and their noise.
        engine: kind of the engines; None takes what the target prefers.
        engines_on_device: leave building the engines to the robot.
        random_weights: draw the policy's weights; the release is for measuring alone.
        robot: description of the robot, where the checkpoint does not hold one.
        tokenizer: a `tokenizer.json`, where the checkpoint only names one.
        vlm_config: folder with the configuration of the vision-language model, likewise.
        security_epoch: robots refuse a release whose key has signed a higher one.
        sign: private key to sign with: loaded, or the file of one without a passphrase.
    """

    checkpoint: Path
    target: str = "cpu-x86_64"
    recipe: str | None = None
    out: Path | None = None
    name: str | None = None
    data: Path | None = None
    calibrate: Path | None = None
    calibration_samples: int | None = None
    auto_precision: bool = False
    max_action_error: float | None = None
    gates: Path | None = None
    allow_loose: bool = False
    form: Form | None = None
    cache: Path | None = None
    force: bool = False
    samples: int | None = None
    seed: int = 0
    engine: str | None = None
    engines_on_device: bool = False
    random_weights: bool = False
    robot: Path | None = None
    tokenizer: Path | None = None
    vlm_config: Path | None = None
    security_epoch: int = 0
    sign: Path | EllipticCurvePrivateKey | None = None

    def __post_init__(self) -> None:
        """Take paths as text too."""
        to_paths(self)


@dataclass(frozen=True)
class Job:
    """A request with everything it names loaded and checked (`libra_edge.compiler.resolve`).

    key: what the release is signed with; from_files: the policy is too large for one ONNX file, so
    that its weights lie beside the graphs and engines are built from files; heavy: each copy of
    its weights, and each call, is felt.
    """

    request: Request
    name: str
    out: Path
    checkpoint: AnyCheckpoint
    target: Target
    plan: EnginePlan
    recipe: Recipe
    samples: Sequence[Sample]
    cache: StageCache
    calibration: CalibrationData | None
    gates: Gates
    key: EllipticCurvePrivateKey | None = None
    from_files: bool = False
    heavy: bool = False

    @property
    def libra(self) -> Checkpoint:
        """The checkpoint, where what is asked for is there for Libra-VLA's own alone."""
        if isinstance(self.checkpoint, Checkpoint):
            return self.checkpoint
        raise TypeError("resolve refuses this for the policies of other families")

    @property
    def form(self) -> Form | None:
        """The refiner's form if it was asked for."""
        return self.request.form

    @property
    def forms(self) -> tuple[Form, ...]:
        """The refiner's forms to make: the one asked for, or all, or of a heavy policy Loop."""
        if self.request.form is not None:
            return (self.request.form,)
        return HEAVY_FORMS if self.heavy else FORMS

    @property
    def limits(self) -> Limits:
        """What every gate holds."""
        return self.gates.limits
