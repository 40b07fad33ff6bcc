"""Torch-TensorRT: engines from the exported PyTorch program, built on the GPU they are for.

Written after the source of Torch-TensorRT 2.13.0; no engine of it was ever built or run by us.
"""

from __future__ import annotations

import time
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from resource import RUSAGE_SELF, getrusage
from typing import Any

import onnx

from libra_edge.catalog import Target, TargetEngine
from libra_edge.engines._epcontext import built_engine
from libra_edge.engines.base import BuiltEngine, Compilation, Engine, Program, QdqForm
from libra_edge.engines.tensorrt import require_gpu
from libra_edge.errors import IncompatibleError, InputError

PACKAGE = "torch-tensorrt"
MOST_CHARACTERS = 600


class TorchTensorRtEngine(Engine):
    """Engines of Torch-TensorRT for the GPU of this machine, in the program's own precision."""

    kind = "torch_tensorrt"
    qdq = QdqForm(rest="fp16")
    from_program = True

    def tools(self) -> dict[str, str]:
        """See `Engine.tools`."""
        _require_packages()
        require_gpu("Torch-TensorRT", None)
        return {PACKAGE: version(PACKAGE), "tensorrt": version("tensorrt")}

    def build(
        self,
        model: bytes,
        settings: TargetEngine,
        target: Target,
        program: Program | None = None,
    ) -> BuiltEngine:
        """See `Engine.build`; the graph says what the engine takes and gives, and stays beside."""
        _require_packages()
        require_gpu("Torch-TensorRT", target)
        capability = target.compute_capability
        assert capability is not None
        graph = onnx.ModelProto.FromString(model)
        name = graph.graph.name
        if program is None:
            raise IncompatibleError(
                "program-missing",
                f"Torch-TensorRT compiles PyTorch programs, and there is none of the {name} here.",
                "Compile the checkpoint, or build the graph with the engine kind tensorrt.",
            )
        begin = time.perf_counter()
        exported = program()
        engine = _convert(exported, name)
        compilation = Compilation(
            PACKAGE,
            version(PACKAGE),
            capability,
            len(engine),
            sum(weight.nbytes for weight in exported.state_dict.values()),
            _workspace_bytes(engine),
            time.perf_counter() - begin,
            getrusage(RUSAGE_SELF).ru_maxrss * 1024,
            log="",
        )
        return built_engine(
            self.kind,
            model,
            engine,
            compilation,
            settings,
            sdk_version=version("tensorrt"),
            # Torch-TensorRT 2.13 names them so, and takes no other names.
            bindings=[f"output{i}" for i in range(len(graph.graph.output))],
        )


ENGINE = TorchTensorRtEngine()


def _convert(exported: Any, name: str) -> bytes:
    """The serialised engine of a program, whole: nothing is left to PyTorch."""
    passes = import_module("torch.export.passes")
    compiler = import_module("torch_tensorrt.dynamo")
    there = passes.move_to_device_pass(exported, "cuda")
    arguments, _ = there.example_inputs
    try:
        engine: bytes = compiler.convert_exported_program_to_serialized_trt_engine(
            there, arg_inputs=arguments, disable_tf32=True
        )
    except Exception as error:  # its errors have no type of their own
        raise IncompatibleError(
            "engine-not-built",
            f"{PACKAGE} {version(PACKAGE)} does not build the {name}: "
            f"{' '.join(str(error).split())[:MOST_CHARACTERS]}.",
            "Choose --recipe fp32 or fp16: it takes no quantised layers of ours.",
        ) from error
    return bytes(engine)


def _workspace_bytes(engine: bytes) -> int:
    """Device memory for activations and scratch, as the engine itself says."""
    tensorrt = import_module("tensorrt")
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    return int(runtime.deserialize_cuda_engine(engine).device_memory_size_v2)


def _require_packages() -> None:
    # Importing it without TensorRT's libraries raises a plain Exception: look, do not try.
    missing = [name for name in ("torch_tensorrt", "tensorrt") if find_spec(name) is None]
    if missing:
        raise InputError(
            "torch-tensorrt-missing",
            f"Torch-TensorRT engines need {' and '.join(missing)}, not installed here.",
            "Install libra-edge[gpu] on a machine with the target's GPU. Or leave the build to the "
            "robot, without --engine and with --engines-on-device.",
        )
