"""The probe engines as ONNX graphs: `probe.Probe`, operator by operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from libra_edge.verification.native import probe
from libra_edge.verification.native.probe import Constants, Contract

_OPSET, _IR_VERSION = 20, 10
DTYPES = {
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
}
Signature = dict[str, tuple[str, tuple[int, ...]]]


def signatures(contract: Contract) -> dict[str, tuple[Signature, Signature]]:
    """Inputs and outputs of both graphs: name to dtype and shape."""
    robot = contract.embodiment
    seen: Signature = {"images": ("uint8", contract.image_shape)}
    place: Signature = {"state": ("float32", (len(robot.state),))}
    words: Signature = {"instruction": ("int64", (contract.instruction_length,))}
    plan, chunk = (contract.plan_steps, contract.dims), (contract.chunk, contract.dims)
    return {
        "planner": (
            seen | words | place,
            {"intent": ("int32", plan), "margin": ("float32", plan)},
        ),
        "refiner": (
            seen | place | {"intent": ("int32", chunk), "noise": ("float32", chunk)},
            {"actions": ("float32", chunk)},
        ),
    }


class _Graph:
    """Writes ONNX nodes one after another; arrays become constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, inputs: Signature, outputs: Signature) -> bytes:
        def values(specs: Signature) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, DTYPES[dtype], shape)
                for name, (dtype, shape) in specs.items()
            ]

        graph = helper.make_graph(
            self.nodes, "probe", values(inputs), values(outputs), self.constants
        )
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


class _Writer(_Graph):
    """What both graphs begin with: the command, and one number made of all that is seen."""

    def __init__(self, constants: Constants) -> None:
        super().__init__()
        self.own = constants
        self.flat = self("Reshape", "images", np.array([-1]))
        self.code = self("Mod", self._byte(0), np.int64(probe.CODES))
        self.size, self.place = self._byte(1), self._byte(2)

    def _byte(self, index: int) -> str:
        return self("Cast", self("Gather", self.flat, np.int64(index)), to=TensorProto.INT64)

    def of_code(self, table: Any) -> str:
        return self("Gather", np.asarray(table), self.code)

    def seen(self) -> str:
        own = self.own
        pixels = self("Cast", self("Gather", self.flat, own.pixels), to=TensorProto.INT64)
        most = probe.LARGEST_STATE
        places = self("Clip", self("Mul", "state", np.float32(8)), -most, most)
        whole = self("Cast", self("Floor", places), to=TensorProto.INT64)
        both = self("Add", self.sum(pixels, own.pixel_weights), self.sum(whole, own.state_weights))
        return self("Add", both, np.int64(probe.SHIFT))

    def sum(self, values: str, weights: Any) -> str:
        return self("ReduceSum", self("Mul", values, weights), keepdims=0)

    def harmed(self, values: str, shape: tuple[int, int], harms: Any, special: str) -> str:
        """`special` in the commanded place, where the code is one of `harms`."""
        count = shape[0] * shape[1]
        place = self("Div", self("Mul", self.place, np.int64(count - 1)), np.int64(255))
        here = self("Equal", np.arange(count).reshape(shape), place)
        return self("Where", self("And", here, self.of_code(harms)), special, values)

    def failing(self, values: str, code: int, zero: Any) -> str:
        """`values`; with this code, an index that is out of bounds."""
        index = self.of_code(np.where(probe.codes(code), probe.FAILING_INDEX, 0))
        return self("Add", values, self("Gather", np.array([zero]), index))


def planner_graph(contract: Contract) -> bytes:
    """The planner as an ONNX file."""
    own = Constants(contract)
    g = _Writer(own)
    shape = own.plan_ramp.shape
    total = g("Add", g.seen(), g.sum("instruction", own.word_weights))
    intent = g("Mod", g("Add", total, own.plan_ramp), np.int64(contract.bins))
    size = g("Mul", g("Cast", intent, to=TensorProto.FLOAT), np.float32(0.125))
    margin = g("Add", size, np.float32(0.5))
    harmed = g.harmed(margin, shape, probe.HARMS_MARGIN, g.of_code(probe.MARGINS))
    g("Identity", g.failing(harmed, probe.PLANNER_FAILS, np.float32(0)), output="margin")
    special = g.of_code(own.special_intents)
    harmed = g.harmed(intent, shape, probe.HARMS_INTENT, special)
    g("Cast", harmed, to=TensorProto.INT32, output="intent")
    return g.model(*signatures(contract)["planner"])


def refiner_graph(contract: Contract) -> bytes:
    """The refiner as an ONNX file."""
    own = Constants(contract)
    g = _Writer(own)
    intent = g("Mul", g("Cast", "intent", to=TensorProto.INT64), np.int64(37))
    total = g("Add", g("Add", g.seen(), own.chunk_ramp), intent)
    level = g("Sub", g("Mod", total, np.int64(probe.LEVELS)), np.int64(probe.LEVELS // 2))
    share = g("Mul", g("Cast", level, to=TensorProto.FLOAT), np.float32(2 / probe.LEVELS))
    gain = g("Add", g("Mul", g("Cast", g.size, to=TensorProto.FLOAT), own.gain), own.offset)
    fine = g("Equal", g.code, np.int64(probe.FINE))
    loud = g("Cast", g("Where", fine, g.place, np.int64(probe.QUIET)), to=TensorProto.FLOAT)
    noise = g("Add", g("Mul", loud, own.noise_gain), own.noise_offset)
    wanted = g("Add", g("Mul", share, gain), g("Mul", "noise", noise))
    special = g.of_code(probe.ACTIONS)
    harmed = g.harmed(wanted, own.chunk_ramp.shape, probe.HARMS_ACTION, special)
    actions = g("Add", g("Mul", harmed, own.half), own.center)
    g("Identity", g.failing(actions, probe.REFINER_FAILS, np.float32(0)), output="actions")
    return g.model(*signatures(contract)["refiner"])


def apart(graph: bytes, file: str) -> tuple[bytes, bytes]:
    """The graph with its first constant in another file, and what that file holds."""
    model = onnx.load_from_string(graph)
    first = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 0)
    content = bytes(first.raw_data)
    first.ClearField("raw_data")
    first.data_location = TensorProto.EXTERNAL
    first.external_data.add(key="location", value=file)
    return bytes(model.SerializeToString()), content
