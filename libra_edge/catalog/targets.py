"""Targets: kinds of machines that a release is compiled for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from libra_edge.catalog.entries import Entry, Name, Number, Precision, Table
from libra_edge.session_options import SessionOption

Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+){0,3}$")]
Positive = Annotated[float, Field(gt=0, strict=False)]


class TargetEngine(Table):
    """One engine kind that a target can run, as `[[engines]]`."""

    kind: Name
    """The compiler of its engines: the name of a file in `libra_edge/engines/`."""
    provider: str
    """The ONNX Runtime execution provider that runs them, as ONNX Runtime spells it."""
    session_options: dict[SessionOption, str] = Field(default={})
    """ONNX Runtime's session configuration entries, by their own names, in the release's manifest
    and so on the robot; none unless the machine needs them."""
    build: Literal["host", "device"] = "host"
    """Where engines are built: on the `host` that compiles, so that parity is measured before the
    release exists, or on the `device`, where a compiler builds only for the GPU it runs on."""
    options: dict[str, str] = Field(default={})
    """Of the build: `tensorrt` has `version_compatible` (`"true"`) and `hardware_compatibility`, as
    TensorRT names them. Other kinds have none, and one that is not known is refused."""


class Software(Table):
    """Versions that the machine is expected to have; absent where nothing of a release needs it.

    An engine built for one version is not loaded on another: TensorRT counts with two numbers, CUDA
    and JetPack with the first, and a driver serves everything up to its own version.
    """

    jetpack: Version | None = None
    """JetPack of a Jetson."""
    cuda: Version | None = None
    """The CUDA that engines and provider are made for."""
    tensorrt: Version | None = None
    """TensorRT, where the machine has its own and builds or loads engines with it."""
    driver: Version | None = None
    """The oldest NVIDIA driver."""


class RuntimeLibrary(Table):
    """The Python package whose wheel holds the target's ONNX Runtime library."""

    package: str
    """Its name; taken at the version that is installed where the release is compiled, so that
    parity is measured with the same ONNX Runtime that the robot gets."""
    platform: str
    """The wheel's platform tag, as in `manylinux_2_28_x86_64`."""
    provider_packages: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Packages (`NAME==VERSION`) with the files of its providers, which a release takes along; the
    CPU provider needs none."""


class Target(Entry):
    """A kind of machine: what native code it runs, and which engines it has.

    A figure that is not known is left out, never guessed: then there is no bound, or no check. Its
    source stands in a comment beside it.
    """

    based_on: Name | None = None
    """The target whose values count where this file says nothing, for a robot with a known board.
    That one may not be based on another."""
    arch: Annotated[str, Field(pattern=r"^[a-z0-9_]+-linux-gnu$")]
    """Processor and system of the native code, as in `x86_64-linux-gnu`."""
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]{1,3}$")]
    """The oldest C library that the native code has to load on, quoted (`"2.35"`)."""
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")] | None = None
    """Of the NVIDIA GPU, quoted (`"8.9"`); engines fit one only. Absent without such a GPU."""
    memory_gib: Positive | None = None
    """Memory for engines in GiB: the GPU's own, or what a Jetson shares with its CPU (of which
    80 % count). Absent: nothing is refused for its size."""
    bandwidth_gb_s: Positive | None = None
    """Memory bandwidth in GB (10^9 bytes) per second. Absent: there are no bounds on latency."""
    launch_us: Positive | None = None
    """What one kernel takes at the least within an engine that is launched as a whole, in
    microseconds: it rules small policies. Absent: launches do not count for bounds."""
    peak_tops: dict[Number, Positive] = Field(default={})
    """Dense peak rate by number format, in 10^12 operations per second (a multiply-add is two),
    with 32-bit accumulation. A policy that computes in a format that is not given has no bound."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)]
    """What the engines can run; a recipe of another precision is refused before any work."""
    default_recipe: Name
    """The recipe that `compile` takes where none is named; its precision is one of `precisions`."""
    refiner_form: Literal["loop", "unrolled"] = "loop"
    """The refiner's form where the two cannot be timed against each other, since the engine does
    not run where it is built. A Loop is smaller and builds faster."""
    software: Software = Software()
    """Versions the machine is expected to have; none where engines are plain graphs."""
    onnxruntime: RuntimeLibrary
    """Where the release's ONNX Runtime comes from."""
    engines: Annotated[tuple[TargetEngine, ...], Field(min_length=1, strict=False)]
    """The engine kinds, best first: `compile` takes the first, or the one named by `--engine`."""

    @property
    def memory_bytes(self) -> int | None:
        """What the accelerator has, or None."""
        return None if self.memory_gib is None else int(self.memory_gib * 2**30)

    @model_validator(mode="after")
    def _engines_differ(self) -> Target:
        pairs = [(engine.kind, engine.provider) for engine in self.engines]
        if len(set(pairs)) != len(pairs):
            raise ValueError("two engines have the same kind and provider")
        return self
