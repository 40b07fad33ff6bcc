"""Exported graphs on ONNX Runtime's CUDA provider, bound to fixed addresses.

A provider that cannot do what it is asked may end the process (seen: a host callback that frees
pinned memory). So every engine is tried out in a process of its own before it is made in ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from gpu.timing import Feeds
from gpu.torch_engines import Staged, make_stream, on_stream

PROVIDER = "CUDAExecutionProvider"
_ERRORS_ONLY = 3
_TRIES, _TRY_S = 30, 90
_NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


def unavailable() -> str:
    """Why this provider cannot be measured here; empty if it can."""
    try:
        import onnxruntime as ort
    except ImportError:
        return "ONNX Runtime is not installed"
    if PROVIDER not in ort.get_available_providers():
        return f"ONNX Runtime {ort.__version__} here has no {PROVIDER}"
    return ""


@cache
def runs_on_our_stream(graph: Path, cuda_graph: bool) -> bool:
    """Whether the provider takes a stream of ours for this engine, else it needs its own.

    Raises:
        RuntimeError: it runs on neither, with its last words.
    """
    said = ""
    for own in (False, True):
        command = [sys.executable, __file__, str(graph), str(int(cuda_graph)), str(int(own))]
        try:
            tried = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S)
        except subprocess.TimeoutExpired:
            said = f"it does not end within {_TRY_S} s"
            continue
        if tried.returncode == 0:
            return not own
        lines = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
        said = next((line for line in reversed(lines) if line.strip()), "")
        stream = "its own stream" if own else "our stream"
        print(f"{graph.name} on {stream}: {' '.join(lines[-6:])[:900]}", file=sys.stderr)
    raise RuntimeError(said[:300])


class OrtEngine:
    """A `Call` of ONNX Runtime: no node may fall back to the CPU.

    Args:
        graph: an ONNX file.
        example: inputs of the shapes to come.
        device: `cuda`, or `cpu` to try this program out.
        stream: where the copies run, and the engine unless it is `own`.
        cuda_graph: let the provider capture it.
        own: let the provider make the engine's stream; priorities do not reach it.
    """

    def __init__(
        self,
        graph: Path,
        example: Feeds,
        device: str,
        stream: Any,
        *,
        cuda_graph: bool,
        own: bool = False,
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            settings = {"device_id": "0", "use_tf32": "0"}
            if not own:
                settings["user_compute_stream"] = str(stream.cuda_stream)
            settings |= {"enable_cuda_graph": "1" if cuda_graph else "0"}
            providers = [(PROVIDER, settings)]
        self._session = ort.InferenceSession(str(graph), options, providers=providers)
        if device == "cuda" and self._session.get_providers()[0] != PROVIDER:
            raise RuntimeError(f"{PROVIDER} could not be loaded: its CUDA libraries are missing")
        self._staged = Staged(example, device, stream)
        self._binding = self._bind(device)
        self._own = own

    def _bind(self, device: str) -> Any:
        binding = self._session.io_binding()
        for name, tensor in self._staged.inputs.items():
            kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
            shape = tuple(tensor.shape)
            binding.bind_input(name, device, 0, kind, shape, tensor.data_ptr())
        outputs = {
            spec.name: torch.from_numpy(np.zeros(spec.shape, _NUMBERS[spec.type])).to(device)
            for spec in self._session.get_outputs()
        }
        for name, tensor in outputs.items():
            kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
            binding.bind_output(name, device, 0, kind, tuple(tensor.shape), tensor.data_ptr())
        self._staged.gives(outputs)
        return binding

    @torch.inference_mode()
    def __call__(self, feeds: Feeds) -> dict[str, Any]:
        """See `Call`."""
        with on_stream(self._staged.stream):
            self._staged.send(feeds)
            if self._own and self._staged.stream is not None:
                self._staged.stream.synchronize()
            self._session.run_with_iobinding(self._binding)
            return self._staged.receive()


def try_out() -> None:
    """In a process of its own: run a graph on noughts, and end without clearing up."""
    import onnxruntime as ort

    graph, cuda_graph, own = Path(sys.argv[1]), sys.argv[2] == "1", sys.argv[3] == "1"
    plain = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    feeds = {spec.name: np.zeros(spec.shape, _NUMBERS[spec.type]) for spec in plain.get_inputs()}
    stream = make_stream("cuda")
    engine = OrtEngine(graph, feeds, "cuda", stream, cuda_graph=cuda_graph, own=own)
    for _ in range(_TRIES):
        engine(feeds)
    torch.cuda.synchronize()
    os._exit(0)


if __name__ == "__main__":
    try_out()
