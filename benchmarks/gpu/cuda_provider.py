"""Exported graphs on ONNX Runtime's CUDA provider, bound to fixed addresses on a stream of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu.timing import Feeds
from gpu.torch_engines import Staged, on_stream

PROVIDER = "CUDAExecutionProvider"
_ERRORS_ONLY = 3


def unavailable() -> str:
    """Why this provider cannot be measured here; empty if it can."""
    try:
        import onnxruntime as ort
    except ImportError:
        return "ONNX Runtime is not installed"
    if PROVIDER not in ort.get_available_providers():
        return f"ONNX Runtime {ort.__version__} here has no {PROVIDER}"
    return ""


class OrtEngine:
    """A `Call` of ONNX Runtime: no node may fall back to the CPU.

    Args:
        graph: an ONNX file.
        example: inputs of the shapes to come.
        device: `cuda`, or `cpu` to try this program out.
        stream: where it runs.
        cuda_graph: let the provider capture it.
    """

    def __init__(
        self, graph: Path, example: Feeds, device: str, stream: Any, *, cuda_graph: bool
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            settings = {"device_id": "0", "use_tf32": "0"}
            settings |= {"user_compute_stream": str(stream.cuda_stream)}
            settings |= {"enable_cuda_graph": "1" if cuda_graph else "0"}
            providers = [(PROVIDER, settings)]
        self._session = ort.InferenceSession(str(graph), options, providers=providers)
        if device == "cuda" and self._session.get_providers()[0] != PROVIDER:
            raise RuntimeError(f"{PROVIDER} could not be loaded: its CUDA libraries are missing")
        self._staged = Staged(example, device, stream)
        self._binding = self._bind(device)
        self._run_options = ort.RunOptions()
        if device == "cuda":
            # The stream's order is enough: the copies back are queued behind the run.
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def _bind(self, device: str) -> Any:
        binding = self._session.io_binding()
        for name, tensor in self._staged.inputs.items():
            kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
            shape = tuple(tensor.shape)
            binding.bind_input(name, device, 0, kind, shape, tensor.data_ptr())
        outputs = {}
        for spec in self._session.get_outputs():
            dtype = {"tensor(float)": torch.float32, "tensor(int32)": torch.int32}[spec.type]
            outputs[spec.name] = torch.zeros(spec.shape, dtype=dtype, device=device)
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
            self._session.run_with_iobinding(self._binding, self._run_options)
            return self._staged.receive()
