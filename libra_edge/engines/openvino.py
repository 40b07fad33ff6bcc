"""OpenVINO: the engine is the plain graph, which OpenVINO compiles when it is loaded.

It runs on Intel's processors: ONNX Runtime's plug-in for it offers no other device. Numbers are
32-bit floats throughout, by an option of the provider; left to itself it computes in bf16 wherever
the processor can, which no gate lets pass (docs/decisions/0122).
"""

from __future__ import annotations

from libra_edge.catalog import Target, TargetEngine
from libra_edge.catalog.providers import PROVIDERS
from libra_edge.engines._plugin import files_of
from libra_edge.engines.base import BuiltEngine, Engine, Program
from libra_edge.engines.session import open_session

PROVIDER = PROVIDERS["OpenVINOExecutionProvider"]


class OpenVinoEngine(Engine):
    """Engines for OpenVINO's plug-in provider."""

    kind = "openvino"

    def build(
        self,
        model: bytes,
        settings: TargetEngine,
        target: Target,
        program: Program | None = None,
    ) -> BuiltEngine:
        """Keep the graph as it is; where OpenVINO is, loading it shows that it takes every node."""
        files_of(PROVIDER)
        if self.is_available(settings.provider):
            session = self.load(model, settings.provider, settings.session_options)
        else:
            session = open_session(model, "CPUExecutionProvider", {}, 1, optimize=False)
        return BuiltEngine(
            self.kind,
            settings.provider,
            settings.session_options,
            model,
            session.inputs,
            session.outputs,
            graph=model,
        )


ENGINE = OpenVinoEngine()
