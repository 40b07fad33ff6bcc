"""What a manifest says of the engines, and of the layers in them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from libra_edge.models import Grown, Strict
from libra_edge.policy.config import Name
from libra_edge.session_options import SessionOption

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Text = Annotated[str, Field(max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=0, le=2**53 - 1)]


class TensorSpec(Strict):
    """Name, element type and static shape of one graph input or output."""

    name: Name
    dtype: Literal["uint8", "int32", "int64", "float32"]
    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]


class Compiled(Strict):
    """What compiled an engine, for what, and what the engine needs of its device.

    weight_bytes: of the weights as it stores them; workspace_bytes: while it runs.
    """

    compiler: Name
    version: Name
    compute_capability: Name
    engine_bytes: Bytes
    weight_bytes: Bytes
    workspace_bytes: Bytes


class Work(Strict):
    """What one call of a graph costs: operations by number format, bytes moved at the least.

    tera_operations: 10^12 multiplications and additions, by the format they run in;
    weight_bytes: read per call, each denoising step anew; activation_bytes: in and out of layers.
    """

    tera_operations: dict[Name, float]
    weight_bytes: Bytes
    activation_bytes: Bytes


class Engine(Grown):
    """How the runtime loads one graph. `compiled` where it is not the plain graph."""

    later: ClassVar[tuple[str, ...]] = ("compiled", "work")

    kind: Name
    provider: Name
    session_options: Annotated[dict[SessionOption, Text], Field(max_length=64)]
    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=16)]
    compiled: Compiled | None = None
    work: Work | None = None


class PlannerEngine(Engine):
    """The planner: images, instruction, state to intent and margin."""

    member: Literal["engines/planner.onnx", "engines/planner.engine.onnx"]


class RefinerEngine(Engine):
    """The refiner: images, state, intent, noise to actions, its K steps fused in one graph.

    Without a planner it takes the instruction, and no intents.
    """

    member: Literal["engines/refiner.onnx", "engines/refiner.engine.onnx"]
    form: Literal["loop", "unrolled"]


class Engines(Grown):
    """The graphs of a policy; `planner` is absent where the policy has none."""

    later: ClassVar[tuple[str, ...]] = ("planner",)

    planner: PlannerEngine | None = None
    refiner: RefinerEngine

    @property
    def by_name(self) -> dict[str, PlannerEngine | RefinerEngine]:
        """Those that there are, in the order the data flows."""
        planner = {} if self.planner is None else {"planner": self.planner}
        return {**planner, "refiner": self.refiner}


class CalibratedLayer(Strict):
    """What became of one layer that could be quantised.

    precision: of its weights, and of its inputs where that is another; input_amax: the largest
    input that calibration found, to six digits; null where inputs are not rounded.
    """

    precision: Text
    input_amax: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class Calibration(Strict):
    """What ranges were found on and what was found, so that calibrating again can be compared.

    dataset: the fingerprint of its files; sha256: of the samples themselves; frames: episode and
    step of each.
    """

    dataset: Text
    sha256: Sha256
    algorithm: Name
    frames: Annotated[tuple[tuple[Index, Index], ...], Field(min_length=1, max_length=4096)]
    layers: Annotated[dict[Text, CalibratedLayer], Field(max_length=8192)]


class Layer(Strict):
    """One matrix product or convolution with weights, read off the built engine.

    kernel: the engine's operator; precision: of its arithmetic, and of its weights where that is
    another; weight_bytes: as stored; runs: per call of the engine, so that a call moves
    `weight_bytes * runs`.
    """

    name: Text
    kernel: Text
    precision: Text
    weight_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)]
    runs: Count
