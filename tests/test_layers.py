"""Arrows point down: which package may import which, with no exceptions.

Every import statement of every module counts, also inside functions and for typing alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the top: a package may import those below it, and none beside or above it.
FLOORS = (
    "cli",
    "api",
    "deploy",
    "report",
    "verification",
    "compiler",
    "evaluation",
    "parity",
    "binding",
    "runtime",
    "training",
    "engines",
    "bundle",
    "data",
    "workers",
    "policy",
    "catalog",
    "limits",
    "session_options",
    "user_cache",
    "paths",
    "models",
    "atomic",
    "errors",
    "version",
)
FIELD = ("runtime", "binding", "bundle", "deploy")
# Commands that a technician's laptop has; all others may need an extra once they run.
FIELD_COMMANDS = (
    *("doctor", "diff", "flash", "inspect", "keys", "pack", "provision"),
    *("rollback", "sign", "status", "targets", "unpack"),
)
HEAVY = ("torch", "onnx", "onnxruntime", "pyarrow", "av", "safetensors")
LONGEST_FILE, MOST_FILES = 350, 12
# What is left to mend, which may only fall: lower the number when it does.
ASSERTS = 36


def modules() -> dict[str, Path]:
    """Every module that the wheel holds, by its name there."""
    found = {}
    for folder in ("libra_edge", "cli"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "libra_edge" else ("libra_edge", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Every module that one names in an import, and the line."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in MODULES else base), node.lineno


def floor(name: str) -> str:
    """The package below `libra_edge` that a module belongs to; the roof is `libra_edge` itself."""
    return name.split(".")[1] if "." in name else "libra_edge"


def test_every_package_has_a_floor() -> None:
    assert {floor(name) for name in MODULES} - {"libra_edge"} == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_arrows_point_down(name: str) -> None:
    levels = {package: level for level, package in enumerate(FLOORS)}
    own = levels.get(floor(name), -1)
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line} imports {other}"
        for other, line in imports(name)
        if other.split(".")[0] == "libra_edge"
        and floor(other) != floor(name)
        and levels.get(floor(other), -1) <= own
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_but_the_command_line_imports_commands() -> None:
    wrong = [
        f"{MODULES[name].relative_to(ROOT)}:{line}"
        for name in MODULES
        for other, line in imports(name)
        if floor(other) == "cli" and floor(name) != "cli"
    ]
    assert not wrong


def test_no_circle_of_files() -> None:
    arrows = {name: {other for other, _ in imports(name) if other in MODULES} for name in MODULES}
    for name in MODULES:
        seen, waiting = set[str](), list(arrows[name] - {name})
        while waiting:
            here = waiting.pop()
            assert here != name, f"{name} imports itself, by way of {sorted(seen)}"
            waiting += [other for other in arrows[here] if other not in seen]
            seen |= arrows[here]


def test_rooms_of_one_package_do_not_import_each_other_both_ways() -> None:
    def room(name: str) -> str:
        return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]

    pairs = {
        (room(name), room(other))
        for name in MODULES
        for other, _ in imports(name)
        if other in MODULES
    }
    both = sorted(
        (a, b) for a, b in pairs if a < b and (b, a) in pairs and not f"{b}.".startswith(f"{a}.")
    )
    assert not both


@pytest.mark.parametrize("name", [n for n in MODULES if floor(n) in FIELD])
def test_field_code_names_nothing_heavy(name: str) -> None:
    wrong = [f"line {line}: {other}" for other, line in imports(name) if _is_heavy(other)]
    assert not wrong, f"{name} is for machines without these: {wrong}"


def _is_heavy(name: str) -> bool:
    return name.split(".")[0] in HEAVY


def test_field_code_and_every_command_load_without_anything_heavy() -> None:
    wanted = [n for n in MODULES if floor(n) in (*FIELD, "cli", "api") or n == "libra_edge"]
    assert {f"libra_edge.cli.{name}" for name in FIELD_COMMANDS} <= set(wanted)
    code = f"""
import importlib, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is not in the field")
sys.meta_path.insert(0, Refused())
for name in {[n for n in wanted if not n.endswith("__main__")]!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{{name}}: {{error}}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def python_files() -> list[Path]:
    """Every Python file that is tracked, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in python_files()
        if (lines := len(path.read_text("utf-8").splitlines())) > LONGEST_FILE
    }
    assert not long


def test_no_room_is_crowded() -> None:
    rooms: dict[Path, int] = {}
    for path in (ROOT / "libra_edge").rglob("*.py"):
        if path.name != "__init__.py":
            rooms[path.parent] = rooms.get(path.parent, 0) + 1
    crowded = {str(r.relative_to(ROOT)): n for r, n in rooms.items() if n > MOST_FILES}
    assert not crowded


def test_asserts_in_the_package_only_fall() -> None:
    count = sum(
        isinstance(node, ast.Assert)
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )
    assert count == ASSERTS, "more than there were, or fewer: then lower the number above"


def test_the_wheel_lists_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = {n for n, path in MODULES.items() if path.name == "__init__.py"}
    listed = set(project["tool"]["setuptools"]["packages"])
    assert listed - {"libra_edge.targets", "libra_edge.calibration"} == packages
