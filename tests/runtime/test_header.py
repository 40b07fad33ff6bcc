"""The header is plain C11, usable from C++, and its layout is frozen."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.binding.library import load_library
from libra_edge.policy.executor import State
from libra_edge.runtime import build
from tests.runtime.native_build import STRICT, TARGET, zig

STRUCTS = {
    "le_open_options": abi.OpenOptions,
    "le_policy_info": abi.PolicyInfo,
    "le_engine_info": abi.EngineInfo,
    "le_dim_info": abi.DimInfo,
    "le_observation": abi.Observation,
    "le_step_info": abi.StepInfo,
    "le_run_options": abi.RunOptions,
    "le_tick_info": abi.TickInfo,
    "le_histogram": abi.Histogram,
    "le_stats_info": abi.StatsInfo,
}
SNAPSHOT = Path(__file__).parent / "abi_1.json"
TEXT = build.HEADER.read_text(encoding="utf-8")


def described(library: Path, tmp_path: Path) -> dict[str, Any]:
    """Sizes and offsets as a C compiler sees them, constants, and declared functions."""
    lines = ["#include <libra_edge.h>", "#include <stddef.h>", "#include <stdio.h>"]
    lines.append("int main(void) {")
    for name, structure in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in structure._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
    constants = re.findall(r"^#define (LE_[A-Z0-9_]+) \d+u?\b", TEXT, flags=re.M)
    lines += [f'printf("{name} %ld\\n", (long){name});' for name in constants]
    source, program = tmp_path / "abi.c", tmp_path / "abi"
    source.write_text("\n".join([*lines, "return 0;", "}"]))
    zig(
        "cc",
        *TARGET,
        "-std=c11",
        *STRICT,
        f"-I{build.HEADER.parent}",
        str(source),
        "-o",
        str(program),
    )
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    numbers = dict(line.rsplit(" ", 1) for line in printed.splitlines())
    functions = re.findall(r"^LE_API [^(]*?\b(le_\w+)\(", TEXT, flags=re.M)
    return {
        "functions": sorted(functions),
        "numbers": {name: int(value) for name, value in sorted(numbers.items())},
    }


@pytest.mark.parametrize(
    "language",
    [("cc", "-std=c11", "c"), ("c++", "-std=c++17", "c++"), ("c++", "-std=c++20", "c++")],
)
def test_compiles_alone_without_a_warning(language: tuple[str, str, str], tmp_path: Path) -> None:
    compiler, standard, name = language
    source = tmp_path / "only.txt"
    source.write_text("#include <libra_edge.h>\nint main(void) { return (int)le_abi_version(); }\n")
    zig(
        *(compiler, *TARGET, standard, *STRICT, "-x", name, f"-I{build.HEADER.parent}"),
        *("-c", str(source), "-o", str(tmp_path / "only.o")),
    )


def test_layout_constants_and_functions_never_change(library: Path, tmp_path: Path) -> None:
    # Functions and constants may be added here; what stands in the file never changes.
    assert described(library, tmp_path) == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_ctypes_has_the_same_layout() -> None:
    numbers = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["numbers"]
    for name, structure in STRUCTS.items():
        assert ctypes.sizeof(structure) == numbers[name]
        for field, *_ in structure._fields_:
            assert getattr(structure, field).offset == numbers[f"{name}.{field}"], field


def test_python_knows_the_same_numbers(library: Path) -> None:
    numbers = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["numbers"]
    assert numbers["LE_ABI_VERSION"] == abi.ABI_VERSION
    assert numbers["LE_ERROR_SIZE"] == abi.ERROR_SIZE
    for name in ("PLANNER_RAN", "REFINER_RAN", "CLAMPED", "NO_COMMAND", "SLOWED"):
        assert numbers[f"LE_STEP_{name}"] == getattr(abi, name)
    pieces = ("PLAN_BEGIN", "PLAN_END", "REFINE_BEGIN", "REFINE_END")
    for name in (*pieces, "PLAN_CLAIM", "PLAN_RUN", "REFINE_CLAIM", "REFINE_RUN"):
        assert numbers[f"LE_WORK_{name}"] == getattr(abi, name)
    for bit, name in enumerate(abi.REALTIME):
        short = name.removeprefix("lock_").upper()
        assert numbers[f"LE_REALTIME_{short}"] == 1 << bit
    for number, name in enumerate(abi.BLENDS):
        assert numbers[f"LE_BLEND_{name.upper()}"] == number
    assert numbers["LE_RUN_LOCK_MEMORY"] == abi.RUN_LOCK_MEMORY
    assert numbers["LE_RUN_MANUAL"] == abi.RUN_MANUAL
    for name in ("ALLOW_FAILED", "ALLOW_RANDOM_WEIGHTS"):
        assert numbers[f"LE_OPEN_{name}"] == getattr(abi, name)
    for name in ("PARITY_FAILED", "RANDOM_WEIGHTS", "PARITY_NOT_MEASURED"):
        assert numbers[f"LE_INFO_{name}"] == getattr(abi, name)
    for number, name in enumerate(abi.KINDS):
        assert numbers[f"LE_KIND_{name.upper()}"] == number
    assert numbers["LE_DIM_FAULTS"] == abi.DIM_FAULTS
    for state in State:
        assert numbers[f"LE_{state.name}"] == state
    reasons = [value for name, value in numbers.items() if name.startswith("LE_REASON_")]
    assert sorted(reasons) == list(range(len(abi.REASONS)))
    loaded = load_library(library)
    for status in range(abi.UNPROVEN + 1):
        name = loaded.le_status_name(status).decode()
        assert numbers[name] == status == getattr(abi, name.removeprefix("LE_"))
    assert loaded.le_status_name(abi.ENGINE_REFUSED + 1) == b"LE_UNKNOWN"
    assert loaded.le_status_name(-1) == b"LE_UNKNOWN"


def test_every_function_carries_a_tag_and_is_declared_in_python() -> None:
    functions = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["functions"]
    assert sorted(abi.PROTOTYPES) == functions
    for comment, name in re.findall(
        r"/\*((?:(?!\*/).)*)\*/\s*LE_API [^(]*?\b(le_\w+)\(", TEXT, re.S
    ):
        assert re.search(r"\[(setup|rt-safe|thread-safe)\]", comment), name
        functions.remove(name)
    assert not functions
