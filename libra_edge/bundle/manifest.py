"""`manifest.json`: what a release is, in one strict model with one byte form.

The manifest holds the sha256 and the size of every other member, so the sha256 of its own bytes
identifies the whole release.
"""

from __future__ import annotations

import hashlib
import json
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from libra_edge.bundle.engine_facts import (
    Bytes,
    Calibration,
    Count,
    Engines,
    Index,
    Layer,
    Sha256,
    Text,
)
from libra_edge.bundle.members import (
    APART,
    COMPILED,
    MANIFEST,
    MAX_BYTES,
    MAX_IMAGE_BYTES,
    MAX_PLAN_NUMBERS,
    MEMBERS,
    OF_PROVIDERS,
    OPTIONAL,
    required_members,
)
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.errors import IncompatibleError, IntegrityError
from libra_edge.limits import ChangedLimit, Verdict, overall
from libra_edge.models import Grown, Strict
from libra_edge.policy.config import Embodiment, Name, Steps

SCHEMA_VERSION = 1


class PolicyFacts(Grown):
    """The checkpoint a release was compiled from, and its time structure (N, H, M, L, K, T).

    Zero says that there is none: no intents and no planner (`bins`), no instruction
    (`instruction_length`), no denoising and no noise (`denoise_steps`). Without a planner the
    refiner may give more control steps than are executed (`predicted`, else H) and may look back
    (`observation_steps`).
    """

    later: ClassVar[tuple[str, ...]] = ("observation_steps", "predicted")

    type: Name
    checkpoint_sha256: Sha256
    bins: Annotated[int, Field(ge=0, le=1_000)]
    chunk: Steps
    chunks_per_plan: Steps
    plan_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    denoise_steps: Annotated[int, Field(ge=0, le=1_000)]
    prediction_type: Literal["epsilon", "none", "sample", "velocity"]
    scheduler: Literal["ddim", "dpm_solver_pp", "flow_euler", "none"]
    instruction_length: Annotated[int, Field(ge=0, le=4_096)]
    predicted: Steps | None = None
    observation_steps: Annotated[int, Field(ge=1, le=64)] = 1

    @property
    def plans(self) -> bool:
        """Whether there is a planner."""
        return self.bins > 0

    @property
    def rows(self) -> int:
        """Control steps that one refiner call gives."""
        return self.predicted or self.chunk

    @model_validator(mode="after")
    def _plan_is_whole_chunks(self) -> PolicyFacts:
        if self.plan_steps != self.chunk * self.chunks_per_plan:
            raise ValueError("plan_steps is not chunk * chunks_per_plan")
        return self

    @model_validator(mode="after")
    def _only_without_a_planner(self) -> PolicyFacts:
        fixed = (self.denoise_steps == 0, self.prediction_type == "none", self.scheduler == "none")
        if len(set(fixed)) != 1:
            raise ValueError("denoise_steps, prediction_type and scheduler do not fit together")
        if self.bins == 1 or (self.bins == 0 and self.chunks_per_plan != 1):
            raise ValueError("bins and chunks_per_plan do not fit together")
        if self.predicted is not None and self.predicted <= self.chunk:
            raise ValueError("predicted is not more than chunk")
        other = self.predicted is not None or self.observation_steps != 1
        if self.plans and (other or self.denoise_steps == 0 or self.instruction_length == 0):
            raise ValueError("a policy with a planner has noise, words and one observation")
        return self


class RuntimeFacts(Strict):
    """What the native libraries in `lib/` are and need."""

    abi_version: Count
    arch: Annotated[str, Field(pattern=r"^[a-z0-9_]+-linux-gnu$")]
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]{1,3}$")]
    onnxruntime_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]


class Provision(Strict):
    """The engines that the robot builds from the graphs when the release is installed."""

    kind: Name
    provider: Name
    options: Annotated[dict[Text, Text], Field(max_length=64)]


class DeviceNeeds(Strict):
    """What the engines ask of a device, besides architecture and C library.

    versions: of `jetpack`, `cuda`, `tensorrt` and `driver`, as the target expects them.
    """

    compute_capability: Name | None
    memory_bytes: Bytes
    versions: Annotated[dict[Name, Name], Field(max_length=8)]


class Decision(Strict):
    """One automatic choice and why. Words and ratios, never exact timings."""

    stage: Text
    subject: Text
    choice: Text
    reason: Text


class ParityCheck(Strict):
    """One gate that was applied while compiling; without a threshold where it could not be."""

    stage: Text
    metric: Text
    threshold: float | None
    verdict: Verdict


class Parity(Strict):
    """The result of all gates; `pass` only if every check was made and passed."""

    verdict: Verdict
    samples: Count
    checks: Annotated[tuple[ParityCheck, ...], Field(min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _verdict_follows_checks(self) -> Parity:
        if self.verdict != overall([check.verdict for check in self.checks]):
            raise ValueError("the verdict does not follow from the checks")
        return self


class Member(Strict):
    """Size and hash of one file of the release."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class ReleaseFacts(Grown):
    """Everything a manifest says except the list of members: what the compiler knows.

    calibration: where a recipe found ranges; random_weights: the policy was never trained; such a
    release is for measuring alone; gates: the limits that it was compiled under, where they are not
    the recipe's; security_epoch: robots refuse a release whose key has signed a higher one.
    """

    later: ClassVar[tuple[str, ...]] = (
        "calibration",
        "device",
        "gates",
        "layers",
        "provision",
        "random_weights",
        "security_epoch",
    )

    schema_version: Literal[1] = 1
    name: Name
    policy: PolicyFacts
    embodiment: Embodiment
    target: Name
    recipe: Name
    engines: Engines
    runtime: RuntimeFacts
    decisions: Annotated[tuple[Decision, ...], Field(max_length=1024)]
    parity: Parity
    tools: Annotated[dict[Name, Name], Field(max_length=256)]
    layers: Annotated[tuple[Layer, ...], Field(max_length=8192)] = ()

    calibration: Calibration | None = None
    device: DeviceNeeds | None = None
    provision: Provision | None = None
    random_weights: bool = False
    gates: Annotated[tuple[ChangedLimit, ...], Field(max_length=16)] = ()
    security_epoch: Index = 0


class Manifest(ReleaseFacts):
    """The whole of `manifest.json`."""

    members: dict[str, Member]

    @field_validator("members")
    @classmethod
    def _exactly_the_known_members(cls, members: dict[str, Member]) -> dict[str, Member]:
        if unknown := sorted(set(members) - MEMBERS - OPTIONAL):
            raise ValueError(f"unknown member {unknown[0]!r}")
        for name, member in members.items():
            if member.size_bytes > MAX_BYTES[name]:
                raise ValueError(f"member {name!r} exceeds {MAX_BYTES[name]} bytes")
        return members

    @model_validator(mode="after")
    def _has_what_its_policy_needs(self) -> Manifest:
        if self.policy.plans != (self.engines.planner is not None):
            raise ValueError("the planner engine does not fit the bins")
        needed = required_members(
            plans=self.policy.plans,
            words=self.policy.instruction_length > 0,
            noise=self.policy.denoise_steps > 0,
        )
        if missing := sorted(needed - set(self.members)):
            raise ValueError(f"no member {missing[0]!r}")
        if other := sorted(set(self.members) - needed - OPTIONAL):
            raise ValueError(f"member {other[0]!r} is of no use to this policy")
        return self

    @model_validator(mode="after")
    def _engines_are_members(self) -> Manifest:
        loaded = {engine.member for engine in self.engines.by_name.values()}
        if loaded & COMPILED != self.members.keys() & COMPILED:
            raise ValueError("the compiled engines are not those that the engines name")
        for name in self.members.keys() & APART.keys():
            if APART[name] not in self.members:
                raise ValueError(f"member {name!r} without {APART[name]!r}")
        return self

    @model_validator(mode="after")
    def _providers_are_whole(self) -> Manifest:
        used = {engine.provider for engine in self.engines.by_name.values()}
        if self.provision is not None:
            used.add(self.provision.provider)
        for name in sorted(self.members.keys() & OF_PROVIDERS.keys()):
            provider = PROVIDERS[OF_PROVIDERS[name]]
            if provider.name not in used:
                raise ValueError(f"member {name!r} is of a provider that no engine names")
            if missing := sorted(provider.members - self.members.keys()):
                raise ValueError(f"member {name!r} without {missing[0]!r}")
        return self

    @model_validator(mode="after")
    def _tensors_are_bounded(self) -> Manifest:
        robot, policy = self.embodiment, self.policy
        image_bytes = policy.observation_steps * prod(robot.image_shape)
        plan_numbers = max(policy.plan_steps, policy.rows) * len(robot.actions)
        if image_bytes > MAX_IMAGE_BYTES or plan_numbers > MAX_PLAN_NUMBERS:
            raise ValueError("the images or the plan are larger than a runtime takes")
        return self

    def to_bytes(self) -> bytes:
        """The one byte form of this manifest."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def release_id(self) -> str:
        """Sha256 (hex) of the manifest's bytes: the identity of the release's content."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def canonical_json(body: Any) -> bytes:
    """JSON in one byte form: keys sorted, indent 1, UTF-8, newline at the end."""
    text = json.dumps(body, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of `manifest.json`."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def parse_manifest(data: bytes) -> Manifest:
    """Read the bytes of a `manifest.json`.

    Raises:
        IncompatibleError: its schema version is one this program does not read.
        IntegrityError: it is too large, not valid, or not in the canonical byte form.
    """
    if len(data) > MAX_BYTES[MANIFEST]:
        raise _invalid(f"is larger than {MAX_BYTES[MANIFEST]} bytes")
    try:
        manifest = Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        other = first["input"]
        if first["loc"] == ("schema_version",) and type(other) is int and abs(other) < 2**53:
            raise _other_schema(other) from None
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _invalid(f"{where}: {first['msg']}") from None
    # Also what makes a repeated key, which JSON parsers pass over in silence, an error.
    if manifest.to_bytes() != data:
        raise _invalid("is not in the canonical byte form")
    return manifest


def _invalid(fact: str) -> IntegrityError:
    return IntegrityError(
        "manifest-invalid", f"{MANIFEST} {fact}.", "Fetch the release again or compile it again."
    )


def _other_schema(version: int) -> IncompatibleError:
    return IncompatibleError(
        "manifest-schema",
        f"The release has manifest schema {version}; this libra-edge reads {SCHEMA_VERSION}.",
        "Use a libra-edge of the same age as the release, or compile it again.",
    )
