"""PyTorch's ways to run a policy: eager or captured in a CUDA graph, naive or split."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from baseline import NaiveStep
from torch import Tensor

from gpu.timing import Feeds
from libra_edge.compiler.quantization.fp16 import halve_in_place
from libra_edge.policy.family import Tables
from libra_edge.policy.libra_vla.model import LibraVLA, sampler_step
from libra_edge.policy.libra_vla.planner import Planner
from libra_edge.policy.libra_vla.refiner import Context, Refiner
from libra_edge.policy.libra_vla.split import (
    ContextGraph,
    PlannerGraph,
    StepGraph,
    make_tables,
)

Body = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
PLANNER_INPUTS = ("images", "instruction", "state")
REFINER_INPUTS = ("images", "state", "intent", "noise")
PRECISIONS = ("fp32", "fp16", "bf16")
_CAPTURE_AFTER = 3


class BrainPlanner(Planner):
    """`Planner` in bfloat16; its edges are those of `HalfPlanner`."""

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor) -> Tensor:
        """See `Planner.forward`."""
        return super().forward(images, instruction, state.bfloat16()).float()


class BrainRefiner(Refiner):
    """`Refiner` in bfloat16; its edges are those of `HalfRefiner`."""

    def encode(self, images: Tensor, state: Tensor) -> Tensor:
        """See `Refiner.encode`."""
        return super().encode(images, state.bfloat16())

    def denoise(self, noisy: Tensor, modulation: Tensor, context: Context) -> Tensor:
        """See `Refiner.denoise`."""
        return super().denoise(noisy.bfloat16(), modulation.bfloat16(), context).float()


def on_device(policy: LibraVLA, precision: str, device: str) -> LibraVLA:
    """A copy of a float32 policy on a device, in one of `PRECISIONS`."""
    moved = copy.deepcopy(policy).to(device).eval().requires_grad_(False)
    if precision == "fp32":
        return moved
    # Says which parameters stay in 32 bits, whatever the sixteen bits are.
    halve_in_place(moved)
    if precision == "bf16":
        assert moved.refiner is not None
        moved.planner.__class__, moved.refiner.__class__ = BrainPlanner, BrainRefiner
        originals = dict(policy.named_parameters())
        for name, parameter in moved.named_parameters():
            if parameter.dtype == torch.float16:
                parameter.data = originals[name].data.to(device).bfloat16()
    return moved


def make_stream(device: str, priority: int = 0) -> Any:
    """A stream of a GPU, or None elsewhere; a lower number is a higher priority."""
    return torch.cuda.Stream(priority=priority) if device == "cuda" else None


def on_stream(stream: Any) -> AbstractContextManager[Any]:
    """Work queued inside goes to the stream."""
    return nullcontext() if stream is None else torch.cuda.stream(stream)


class Staged:
    """Arrays of the host to fixed addresses on a device and back, on one stream."""

    def __init__(self, example: Feeds, device: str, stream: Any) -> None:
        self.stream = stream
        pinned = device == "cuda"
        hosts = {name: torch.from_numpy(value.copy()) for name, value in example.items()}
        self.hosts = {n: h.pin_memory() if pinned else h for n, h in hosts.items()}
        self.inputs = {name: host.to(device) for name, host in self.hosts.items()}
        self.outputs: dict[str, Tensor] = {}
        self.back: dict[str, Tensor] = {}

    def gives(self, outputs: dict[str, Tensor]) -> None:
        """Where the results will lie."""
        self.outputs = outputs
        if not self.back:
            pinned = self.stream is not None
            self.back = {
                name: torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
                for name, value in outputs.items()
            }

    def send(self, feeds: Feeds) -> None:
        """Queue the inputs."""
        for name, host in self.hosts.items():
            host.numpy()[...] = feeds[name]
            self.inputs[name].copy_(host, non_blocking=True)

    def receive(self) -> dict[str, Any]:
        """Queue the outputs, wait for the stream and hand them out."""
        for name, value in self.outputs.items():
            self.back[name].copy_(value, non_blocking=True)
        if self.stream is not None:
            self.stream.synchronize()
        return {name: value.numpy().copy() for name, value in self.back.items()}


class TorchEngine:
    """A `Call` of PyTorch.

    Args:
        body: device tensors in, device tensors out.
        example: inputs of the shapes to come.
        stream: where it runs; None on a CPU.
        graph: capture it in a CUDA graph once; on a CPU there is none and it runs as it stands.
    """

    def __init__(
        self, body: Body, example: Feeds, device: str, stream: Any, *, graph: bool
    ) -> None:
        self._body = body
        self._staged = Staged(example, device, stream)
        self._graph: Any = None
        if graph and device == "cuda":
            self._capture(stream)

    @torch.inference_mode()
    def _capture(self, stream: Any) -> None:
        with on_stream(stream):
            for _ in range(_CAPTURE_AFTER):
                self._body(self._staged.inputs)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Kernels keep the priority of the stream they are captured on.
        with torch.cuda.graph(self._graph, stream=stream):
            self._staged.gives(self._body(self._staged.inputs))

    @torch.inference_mode()
    def __call__(self, feeds: Feeds) -> dict[str, Any]:
        """See `Call`."""
        with on_stream(self._staged.stream):
            self._staged.send(feeds)
            self.launch()
            return self._staged.receive()

    @torch.inference_mode()
    def launch(self) -> None:
        """Queue one run on what was sent last, on the current stream."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._staged.gives(self._body(self._staged.inputs))


class PlannerLoad:
    """The planner over and over on its own stream: a `Load`."""

    def __init__(self, planner: TorchEngine, stream: Any) -> None:
        self._planner, self._stream = planner, stream
        self._event = torch.cuda.Event() if stream is not None else None

    def begin(self, count: int) -> None:
        """See `Load`."""
        if self._event is None:
            return
        with on_stream(self._stream):
            for _ in range(count):
                self._planner.launch()
            self._event.record(self._stream)

    def busy(self) -> bool:
        """See `Load`."""
        return self._event is not None and not self._event.query()

    def drain(self) -> None:
        """See `Load`."""
        if self._stream is not None:
            self._stream.synchronize()


def planner_body(policy: LibraVLA) -> Body:
    """The planner's graph, before it is exported."""
    module = PlannerGraph(policy).eval()

    def run(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
        intent, margin = module(*(t[name] for name in PLANNER_INPUTS))
        return {"intent": intent, "margin": margin}

    return run


def naive_body(policy: LibraVLA, device: str) -> Body:
    """The model's forward pass in a loop: the observation is encoded in each denoising step."""
    module, table = NaiveStep(policy).eval(), policy.table
    times = torch.tensor([float(t) for t in table.timesteps], device=device)
    rows = [[float(c) for c in row] for row in table.coefficients]

    def run(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images, state, intent, x = (t[name][None] for name in REFINER_INPUTS)
        previous = torch.zeros_like(x)
        for k, row in enumerate(rows):
            output = module(images, state, intent, x, times[k : k + 1])
            x, previous = sampler_step(x, output, previous, row, table.clip_sample)
        return {"actions": policy.action.denormalize(x)[0]}

    return run


def split_body(policy: LibraVLA, tables: Tables, device: str) -> Body:
    """The compiler's split, before it is exported: context once, tables for what time decides."""
    assert policy.refiner is not None
    context = ContextGraph(policy, policy.refiner).eval()
    step = StepGraph(policy, policy.refiner).eval()
    modulation = torch.from_numpy(tables.modulation).to(device)
    coefficients = torch.from_numpy(tables.coefficients).to(device)

    def run(t: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shared = context(t["images"], t["state"], t["intent"])
        x, previous = t["noise"], torch.zeros_like(t["noise"])
        for k in range(len(coefficients)):
            carried = (x, previous) if tables.remembers else (x,)
            outputs = step(*carried, modulation[k], coefficients[k], *shared)
            x, previous = outputs[0], outputs[-1]
        return {"actions": policy.action.denormalize(x)}

    return run


@torch.no_grad()
def tables_of(policy: LibraVLA) -> Tables:
    """The tables of a float32 policy on the CPU; they are those of its 16-bit forms too."""
    assert policy.refiner is not None
    return make_tables(policy, policy.refiner)
