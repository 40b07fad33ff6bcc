"""ONNX Runtime: the engine is the plain ONNX graph, optimised when it is loaded.

Saving ONNX Runtime's own optimised graph would tie a release to the build machine's instruction
set; loading costs a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort

from libra_edge.catalog import Recipe, TargetEngine
from libra_edge.engines.base import Array, BuiltEngine, Engine, QdqForm, Session, TensorSpec

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float)": "float32",
}
_ERRORS_ONLY = 3


class OnnxRuntimeSession(Session):
    """An ONNX Runtime session with static shapes."""

    def __init__(self, session: ort.InferenceSession) -> None:
        super().__init__(_specs(session.get_inputs()), _specs(session.get_outputs()))
        self._session = session
        self._names = [spec.name for spec in self.outputs]

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))


class OnnxRuntimeEngine(Engine):
    """Engines for ONNX Runtime's execution providers."""

    kind = "onnxruntime"
    # The one form in which the CPU kernels multiply integers; docs/decisions/0030 has the figures.
    qdq = QdqForm(unsigned_activations=True, integer_bias=True, images_in_integers=True)

    def is_available(self, provider: str) -> bool:
        """Whether this machine's ONNX Runtime has the provider."""
        return provider in ort.get_available_providers()

    def build(self, model: bytes, settings: TargetEngine, recipe: Recipe) -> BuiltEngine:
        """Keep the graph as it is; loading it on the CPU shows that ONNX Runtime takes it."""
        session = self._load(model, "CPUExecutionProvider", settings.session_options, 1, True)
        return BuiltEngine(
            self.kind,
            settings.provider,
            settings.session_options,
            model,
            session.inputs,
            session.outputs,
        )

    def _load(
        self,
        content: bytes,
        provider: str,
        session_options: Mapping[str, str],
        threads: int,
        optimise: bool,
    ) -> Session:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if not optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for key, value in session_options.items():
            options.add_session_config_entry(key, value)
        return OnnxRuntimeSession(ort.InferenceSession(content, options, providers=[provider]))


ENGINE = OnnxRuntimeEngine()


def _specs(arguments: list[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(a.name, _DTYPES[a.type], tuple(a.shape)) for a in arguments)
