"""The names a release may hold, and nothing else: no path in a release is chosen by its content."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from libra_edge.catalog.providers import PROVIDERS

MANIFEST = "manifest.json"
# Over the manifest and so none of its members; a release that nobody signed has none.
SIGNATURE = "model.sig"
MAX_SIGNATURE_BYTES = 1024 * 1024
SBOM = "sbom.cdx.json"
_MIB = 1024 * 1024
# What the size field of the one-file form holds.
_LARGEST_BYTES = 8 * 1024 * _MIB - 1

# Upper bound of each member in bytes; checked before anything is read or written.
MAX_BYTES: Mapping[str, int] = MappingProxyType(
    {
        MANIFEST: 1 * _MIB,
        SBOM: 4 * _MIB,
        "tokenizer.json": 64 * _MIB,
        "engines/planner.onnx": 2048 * _MIB - 1,
        "engines/refiner.onnx": 2048 * _MIB - 1,
        "engines/planner.engine.onnx": 2048 * _MIB - 1,
        "engines/refiner.engine.onnx": 2048 * _MIB - 1,
        "engines/planner.data": _LARGEST_BYTES,
        "engines/refiner.data": _LARGEST_BYTES,
        "engines/planner.engine": _LARGEST_BYTES,
        "engines/refiner.engine": _LARGEST_BYTES,
        "lib/liblibra_edge.so": 256 * _MIB,
        "lib/libonnxruntime.so": 1024 * _MIB,
        "lib/libra-agent": 64 * _MIB,
        "include/libra_edge.h": 1 * _MIB,
        "golden/images.npy": 512 * _MIB,
        "golden/instruction.npy": 16 * _MIB,
        "golden/state.npy": 16 * _MIB,
        "golden/noise.npy": 16 * _MIB,
        "golden/intent.npy": 16 * _MIB,
        "golden/margin.npy": 16 * _MIB,
        "golden/actions.npy": 16 * _MIB,
    }
    | {file.member: file.most_bytes for one in PROVIDERS.values() for file in one.files}
)
# What one observation's images and one plan may hold: every runtime has to allocate them.
MAX_IMAGE_BYTES = 1 << 30
MAX_PLAN_NUMBERS = 1 << 24
# Engines that a compiler made of the graphs; where there are none, the graphs are the engines.
COMPILED = frozenset({"engines/planner.engine.onnx", "engines/refiner.engine.onnx"})
# What one ONNX file cannot hold lies beside it, by these names and no others: a graph's weights,
# a compiled engine (docs/decisions/0046).
APART = {
    "engines/planner.data": "engines/planner.onnx",
    "engines/refiner.data": "engines/refiner.onnx",
    "engines/planner.engine": "engines/planner.engine.onnx",
    "engines/refiner.engine": "engines/refiner.engine.onnx",
}
# What installs releases on a robot; releases of before it have none.
AGENT = "lib/libra-agent"
LIBRARY = "lib/liblibra_edge.so"
# Members that come with a provider: all of one's, or none.
OF_PROVIDERS = {name: one.name for one in PROVIDERS.values() for name in one.members}
OPTIONAL = COMPILED | APART.keys() | OF_PROVIDERS.keys() | {AGENT, SBOM}
MEMBERS = frozenset(MAX_BYTES) - OPTIONAL - {MANIFEST}
# Members that only some policies have: with a planner, with an instruction, with noise.
OF_PLANS = frozenset({"engines/planner.onnx", "golden/intent.npy", "golden/margin.npy"})
OF_WORDS = frozenset({"golden/instruction.npy", "tokenizer.json"})
OF_NOISE = frozenset({"golden/noise.npy"})
ALWAYS = MEMBERS - OF_PLANS - OF_WORDS - OF_NOISE
FOLDERS = frozenset(name.split("/")[0] for name in MAX_BYTES if "/" in name)
ALWAYS_FOLDERS = frozenset(name.split("/")[0] for name in ALWAYS if "/" in name)


def required_members(*, plans: bool, words: bool, noise: bool) -> frozenset[str]:
    """What the release of a policy must hold besides its manifest."""
    wanted = (OF_PLANS, plans), (OF_WORDS, words), (OF_NOISE, noise)
    return ALWAYS.union(*(names for names, there in wanted if there))
