"""A compiled engine as an ONNX file: one `EPContext` node that holds it, for ONNX Runtime.

The engine lies in the file unchanged, in one attribute: what is hashed is what is deserialised,
and no path leads out of the release (docs/decisions/0041). One that no ONNX file can hold is a
member of the release by itself, and the node has that member's name (docs/decisions/0046).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from libra_edge.catalog import TargetEngine
from libra_edge.engines.base import BuiltEngine, Compilation
from libra_edge.engines.session import TensorSpec
from libra_edge.errors import IncompatibleError

OP, DOMAIN = "EPContext", "com.microsoft"
IR_VERSION, OPSET = 9, 20
LARGEST_ENGINE_BYTES = 2**31 - 2**20
_DTYPES = {
    TensorProto.UINT8: "uint8",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.FLOAT: "float32",
}
_ELEMENTS = {name: element for element, name in _DTYPES.items()}


def graph_specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that a graph declares."""
    inputs, outputs = (
        tuple(
            TensorSpec(
                value.name,
                _DTYPES[value.type.tensor_type.elem_type],
                tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in values
        )
        for values in (model.graph.input, model.graph.output)
    )
    return inputs, outputs


def wrap(
    engine: bytes | str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    name: str,
    provider: str,
    hardware: str,
    sdk_version: str,
    bindings: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The ONNX file around an engine.

    Args:
        engine: the serialised engine, or the name of the file beside this one that holds it.
        inputs: of the graph it was built from.
        outputs: of the graph it was built from.
        name: of the graph.
        provider: the execution provider that runs it.
        hardware: what it was compiled for, for example `89`.
        sdk_version: of the compiler, as the provider writes it.
        bindings: what the engine calls its outputs, where a compiler gave them names of its own:
            the provider finds them by name.
        metadata: properties of the file.

    Raises:
        IncompatibleError: the engine is larger than an ONNX file may be.
    """
    embedded = isinstance(engine, bytes)
    if embedded and len(engine) > LARGEST_ENGINE_BYTES:
        raise IncompatibleError(
            "engine-too-large",
            f"The {name} engine has {len(engine) / 2**30:.2f} GiB; an ONNX file holds less than 2.",
            "Choose a recipe with fewer bits, for example --recipe fp8 or int4-awq.",
        )
    node = helper.make_node(
        OP,
        [spec.name for spec in inputs],
        bindings or [spec.name for spec in outputs],
        name=name,
        domain=DOMAIN,
        main_context=1,
        embed_mode=int(embedded),
        ep_cache_context=engine,
        ep_sdk_version=sdk_version,
        hardware_architecture=hardware,
        onnx_model_filename="",
        partition_name=name,
        source=provider,
    )
    renamed = [
        helper.make_node("Identity", [binding], [spec.name])
        for binding, spec in zip(bindings or (), outputs, strict=bool(bindings))
    ]
    graph = helper.make_graph([node, *renamed], name, _values(inputs), _values(outputs))
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="libra-edge", graph=graph)
    model.opset_import.add(domain="", version=OPSET)
    model.opset_import.add(domain=DOMAIN, version=1)
    helper.set_model_props(model, dict(metadata or {}))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def built_engine(
    kind: str,
    model: bytes,
    engine: bytes | str,
    compilation: Compilation,
    settings: TargetEngine,
    *,
    sdk_version: str | None = None,
    bindings: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> BuiltEngine:
    """A compiled engine as it goes into a release.

    Args:
        kind: the engine kind.
        model: the graph it stands for.
        engine: see `wrap`.
        compilation: how it was made.
        settings: the target's entry that it was built for.
        sdk_version: see `wrap`; None where it is the version of `compilation`.
        bindings: see `wrap`.
        metadata: see `wrap`.
    """
    graph = onnx.ModelProto.FromString(model)
    inputs, outputs = graph_specs(graph)
    content = wrap(
        engine,
        inputs,
        outputs,
        name=graph.graph.name,
        provider=settings.provider,
        hardware=digits(compilation.compute_capability),
        sdk_version=sdk_version or compilation.version,
        bindings=bindings,
        metadata=metadata,
    )
    return BuiltEngine(
        kind,
        settings.provider,
        settings.session_options,
        content,
        inputs,
        outputs,
        graph=model,
        compilation=compilation,
    )


def unwrap(content: bytes) -> bytes:
    """The serialised engine inside a file that `wrap` made.

    Raises:
        ValueError: the file is no such one, or the engine lies beside it.
    """
    model = onnx.ModelProto.FromString(content)
    if [node.op_type for node in model.graph.node if node.op_type != "Identity"] != [OP]:
        raise ValueError("not one EPContext node")
    attributes = {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
    if attributes["embed_mode"] != 1:
        raise ValueError("the engine lies in a file of its own")
    engine: bytes = attributes["ep_cache_context"]
    return engine


def _values(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(s.name, _ELEMENTS[s.dtype], s.shape) for s in specs]


def digits(compute_capability: str) -> str:
    """`8.9` as compilers write it: `89`."""
    return compute_capability.replace(".", "")
