"""What runs engines besides ONNX Runtime's own CPU code: one fixed table for Python and C++.

A release names a provider and nothing else: files, their order, options and the kind of device are
from here, never from a manifest. The files are members of the release, under `provider/`, so that
they are signed, sent, hashed and rolled back with the engines that need them.

Sources: ONNX Runtime's "Plugin execution provider libraries" (onnxruntime.ai), the READMEs of the
packages named below, and what loading them showed (docs/decisions/0121).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

CPU = "CPUExecutionProvider"
FOLDER = "provider"
_MIB = 1024 * 1024

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class File:
    """A library of a provider.

    name: in the release, which is what other libraries ask for; packed: in the package, where it
    is another; most_bytes: a bound on its size.
    """

    name: str
    most_bytes: int
    packed: str = ""

    @property
    def member(self) -> str:
        """Its name as a member of a release."""
        return f"{FOLDER}/{self.name}"


@dataclass(frozen=True)
class Provider:
    """A plug-in for ONNX Runtime.

    words: for people; kind: of the engines that it runs; compiled: whether those were made of the
    graphs before, by a compiler; device: that it runs on; package: the
    Python distribution that has the files, and module: its folder; extra: of libra-edge, which
    installs it; files: in the order in which
    they are loaded, the plug-in last; options: that the plug-in gets for both engines, where
    `{threads}` stands for their number, and `{cache}` for a folder, without which there is no such
    option; planner, refiner: for one of them alone.
    """

    name: str
    words: str
    kind: str
    compiled: bool
    device: Device
    package: str
    module: str
    extra: str
    files: tuple[File, ...]
    options: Mapping[str, str]
    planner: Mapping[str, str] = field(default_factory=dict)
    refiner: Mapping[str, str] = field(default_factory=dict)

    @property
    def members(self) -> frozenset[str]:
        """Its files as members of a release."""
        return frozenset(file.member for file in self.files)

    def options_of(self, engine: str, threads: int) -> dict[str, str]:
        """What the plug-in gets for `planner` or `refiner`."""
        own = self.planner if engine == "planner" else self.refiner
        both = {**self.options, **own}
        kept = {key: value for key, value in both.items() if value != "{cache}"}
        return {key: value.replace("{threads}", str(threads)) for key, value in kept.items()}


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        provider.name: provider
        for provider in (
            Provider(
                "NvTensorRTRTXExecutionProvider",
                "TensorRT for RTX",
                "tensorrt_rtx",
                True,
                "gpu",
                "onnxruntime-ep-nv-tensorrt-rtx-cu13",
                "onnxruntime_ep_nv_tensorrt_rtx",
                "rtx",
                (
                    File("libcudart.so.13", 16 * _MIB, "libcudart.so.13.4.36"),
                    File("libtensorrt_rtx.so.1", 1024 * _MIB, "libtensorrt_rtx.so.1.7.1"),
                    File(
                        "libtensorrt_onnxparser_rtx.so.1",
                        64 * _MIB,
                        "libtensorrt_onnxparser_rtx.so.1.7.1",
                    ),
                    File("libonnxruntime_providers_nv_tensorrt_rtx.so", 64 * _MIB),
                ),
                MappingProxyType(
                    {"nv_persistent_context_memory": "1", "nv_runtime_cache_path": "{cache}"}
                ),
                # The loop's many small kernels are launched at once.
                refiner=MappingProxyType({"enable_cuda_graph": "1"}),
            ),
            Provider(
                "OpenVINOExecutionProvider",
                "OpenVINO",
                "openvino",
                False,
                "cpu",
                "onnxruntime-ep-openvino",
                "onnxruntime_ep_openvino",
                "openvino",
                (
                    File("libtbb.so.12", 16 * _MIB),
                    File("libopenvino.so.2641", 256 * _MIB),
                    File("libopenvino_onnx_frontend.so.2641", 64 * _MIB),
                    File("libopenvino_ir_frontend.so.2641", 16 * _MIB),
                    File("libopenvino_intel_cpu_plugin.so", 512 * _MIB),
                    File("libonnxruntime_providers_openvino_plugin.so", 64 * _MIB),
                ),
                # By itself it computes in bf16 where the processor can, which no gate lets pass.
                MappingProxyType(
                    {
                        "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32", '
                        '"INFERENCE_NUM_THREADS": "{threads}"}}'
                    }
                ),
            ),
        )
    }
)
