"""A release around two tiny graphs whose arithmetic NumPy can redo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from libra_edge.policy.execution.noise import chunk_noise
from libra_edge.policy.tokenizer import word_tokenizer
from libra_edge.runtime import build

N, H, M, K = 10, 3, 2, 4
V, HEIGHT, WIDTH, T, P, D = 2, 4, 6, 5, 3, 4
L = H * M
LOWER = np.array([-0.5, -0.5, 0.1, -1.0], dtype=np.float32)
UPPER = np.array([0.5, 0.5, 0.9, 1.0], dtype=np.float32)
KINDS = ("delta", "delta", "absolute", "gripper")
GOLDEN = 3

# A first pixel above 200 makes an engine misbehave: red the planner's margin, green the refiner's
# actions (both NaN), blue the planner's intents (out of range).
BAD_PIXEL = 200.0
BAD_MARGIN, BAD_ACTION, BAD_INTENT = 0, 1, 2

_DTYPES = {
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "float32": TensorProto.FLOAT,
}
PLANNER_INPUTS = {
    "images": ("uint8", [V, HEIGHT, WIDTH, 3]),
    "instruction": ("int64", [T]),
    "state": ("float32", [P]),
}
PLANNER_OUTPUTS = {"intent": ("int32", [L, D]), "margin": ("float32", [L, D])}
REFINER_INPUTS = {
    "images": ("uint8", [V, HEIGHT, WIDTH, 3]),
    "state": ("float32", [P]),
    "intent": ("int32", [H, D]),
    "noise": ("float32", [H, D]),
}
REFINER_OUTPUTS = {"actions": ("float32", [H, D])}
RAMP = (np.arange(L * D, dtype=np.float32).reshape(L, D) * 3) % 7


def plan(images: Any, instruction: Any, state: Any) -> tuple[Any, Any]:
    """What the planner graph computes; whole numbers throughout, so that it is exact."""
    total = images.astype(np.float64).sum() + 3 * instruction.sum() + np.floor(state * 8).sum()
    intent = (total + RAMP) % N
    return intent.astype(np.int32), (intent * 0.125 + 0.5).astype(np.float32)


def refine(images: Any, state: Any, intent: Any, noise: Any) -> Any:
    """What the refiner graph computes."""
    shift = images.astype(np.float32).sum() * np.float32(1e-5) + state[0] * np.float32(0.01)
    return (np.float32(0.1) * intent + np.float32(0.3) * noise + (shift - np.float32(0.45))).astype(
        np.float32
    )


class Graph:
    """Writes ONNX nodes one after another."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def __call__(self, op: str, *inputs: Any, **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = attributes.pop("output", f"v{len(self.nodes)}")
        self.nodes.append(helper.make_node(op, names, [output], **attributes))
        return str(output)

    def constant(self, value: Any) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def bad(self, images: str, channel: int) -> str:
        """The float pixel that triggers misbehaviour of this channel."""
        end = [1, 1, 1, channel + 1]
        cut = self("Slice", images, np.array([0, 0, 0, channel]), np.array(end))
        return self("ReduceSum", cut, keepdims=0)

    def nan_if(self, pixel: str) -> str:
        root = self("Sqrt", self("Sub", np.float32(BAD_PIXEL), pixel))
        return self("Mul", root, np.float32(0))

    def model(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> bytes:
        def values(specs: dict[str, Any]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, _DTYPES[dtype], shape)
                for name, (dtype, shape) in specs.items()
            ]

        graph = helper.make_graph(
            self.nodes, "tiny", values(inputs), values(outputs), self.initializers
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def planner_onnx() -> bytes:
    g = Graph()
    images = g("Cast", "images", to=TensorProto.FLOAT)
    words = g("ReduceSum", g("Cast", "instruction", to=TensorProto.FLOAT), keepdims=0)
    place = g("ReduceSum", g("Floor", g("Mul", "state", np.float32(8))), keepdims=0)
    seen = g("ReduceSum", images, keepdims=0)
    total = g("Add", g("Add", seen, g("Mul", words, np.float32(3))), place)
    raw = g("Add", total, RAMP)
    turns = g("Floor", g("Div", raw, np.float32(N)))
    intent = g("Sub", raw, g("Mul", turns, np.float32(N)))
    margin = g("Add", g("Mul", intent, np.float32(0.125)), np.float32(0.5))
    g("Add", margin, g.nan_if(g.bad(images, BAD_MARGIN)), output="margin")
    too_bright = g("Greater", g.bad(images, BAD_INTENT), np.float32(BAD_PIXEL))
    excess = g("Mul", g("Cast", too_bright, to=TensorProto.FLOAT), np.float32(N))
    g("Cast", g("Add", intent, excess), to=TensorProto.INT32, output="intent")
    return g.model(PLANNER_INPUTS, PLANNER_OUTPUTS)


def refiner_onnx(inputs: dict[str, Any] = REFINER_INPUTS) -> bytes:
    g = Graph()
    images = g("Cast", "images", to=TensorProto.FLOAT)
    seen = g("Mul", g("ReduceSum", images, keepdims=0), np.float32(1e-5))
    first = g("Slice", "state", np.array([0]), np.array([1]))
    shift = g("Add", seen, g("Mul", first, np.float32(0.01)))
    coarse = g("Mul", g("Cast", "intent", to=TensorProto.FLOAT), np.float32(0.1))
    fine = g("Add", coarse, g("Mul", "noise", np.float32(0.3)))
    actions = g("Add", fine, g("Sub", shift, np.float32(0.45)))
    g("Add", actions, g.nan_if(g.bad(images, BAD_ACTION)), output="actions")
    return g.model(inputs, REFINER_OUTPUTS)


def observation(rng: np.random.Generator) -> tuple[Any, Any]:
    """A harmless random observation."""
    images = rng.integers(0, 200, (V, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return images, rng.standard_normal(P).astype(np.float32)


def _save_golden(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(7)
    names = ("images", "instruction", "state", "noise", "intent", "margin", "actions")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for sample in range(GOLDEN):
        images, state = observation(rng)
        instruction = rng.integers(0, 9, T)
        noise = chunk_noise(sample, 0, (H, D))
        intent, margin = plan(images, instruction, state)
        actions = refine(images, state, intent[:H], noise)
        values = (images, instruction, state, noise, intent, margin, actions)
        for name, value in zip(names, values, strict=True):
            rows[name].append(value)
    for name, values in rows.items():
        np.save(folder / f"{name}.npy", np.stack(values))


def _specs(specs: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": n, "dtype": dtype, "shape": shape} for n, (dtype, shape) in specs.items()]


def _engine(name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "onnxruntime",
        "member": f"engines/{name}.onnx",
        "provider": "CPUExecutionProvider",
        "session_options": {"session.set_denormal_as_zero": "0"},
        "inputs": _specs(inputs),
        "outputs": _specs(outputs),
    }


def manifest() -> dict[str, Any]:
    """The manifest, without its members."""
    actions = [
        {"name": f"a{d}", "unit": "m", "kind": kind, "lower": float(low), "upper": float(high)}
        for d, (kind, low, high) in enumerate(zip(KINDS, LOWER, UPPER, strict=True))
    ]
    onnxruntime = build.onnxruntime_library()
    check = {"stage": "build", "metric": "actions", "threshold": 1e-4, "verdict": "pass"}
    return {
        "schema_version": 1,
        "name": "tiny",
        "policy": {
            "type": "libra_vla",
            "checkpoint_sha256": "0" * 64,
            "bins": N,
            "chunk": H,
            "chunks_per_plan": M,
            "plan_steps": L,
            "denoise_steps": K,
            "prediction_type": "sample",
            "scheduler": "ddim",
            "instruction_length": T,
        },
        "embodiment": {
            "name": "tiny",
            "control_hz": 20.0,
            "cameras": [f"c{v}" for v in range(V)],
            "image_height": HEIGHT,
            "image_width": WIDTH,
            "state": [{"name": f"s{p}", "unit": "m"} for p in range(P)],
            "actions": actions,
        },
        "target": "cpu-x86_64",
        "recipe": "fp32",
        "engines": {
            "planner": _engine("planner", PLANNER_INPUTS, PLANNER_OUTPUTS),
            "refiner": {**_engine("refiner", REFINER_INPUTS, REFINER_OUTPUTS), "form": "loop"},
        },
        "runtime": {
            "abi_version": 1,
            "arch": "x86_64-linux-gnu",
            "glibc": "2.35",
            "onnxruntime_version": build.onnxruntime_version(onnxruntime),
        },
        "decisions": [],
        "parity": {"verdict": "pass", "samples": GOLDEN, "checks": [check]},
        "tools": {"onnx": onnx.__version__},
    }


def write_manifest(release: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    replace(release / "manifest.json", text.encode())


def seal(release: Path, content: dict[str, Any]) -> None:
    """Write the manifest over the members that lie in the folder."""
    members = {}
    for path in sorted(release.rglob("*")):
        name = path.relative_to(release).as_posix()
        if path.is_file() and name != "manifest.json":
            data = path.read_bytes()
            members[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    write_manifest(release, {**content, "members": members})


def replace(path: Path, content: bytes) -> None:
    """Give a member other content; the file may be a hard link that others still use."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def make_release(release: Path, library: Path) -> Path:
    for folder in ("engines", "lib", "include"):
        (release / folder).mkdir(parents=True)
    (release / "engines/planner.onnx").write_bytes(planner_onnx())
    (release / "engines/refiner.onnx").write_bytes(refiner_onnx())
    shutil.copy(library, release / "lib/liblibra_edge.so")
    shutil.copy(build.onnxruntime_library(), release / "lib/libonnxruntime.so")
    shutil.copy(build.HEADER, release / "include/libra_edge.h")
    word_tokenizer(["open the tap", "close the drawer", "push a button"]).save(
        str(release / "tokenizer.json")
    )
    _save_golden(release / "golden")
    seal(release, manifest())
    return release


def link_release(release: Path, to: Path) -> Path:
    """A copy that costs nothing; change its members with `replace` only."""
    return Path(shutil.copytree(release, to, copy_function=os.link))
