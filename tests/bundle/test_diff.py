from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from libra_edge.bundle.diff import Change, diff_releases, read_build_report
from libra_edge.bundle.manifest import Manifest, ReleaseFacts
from libra_edge.bundle.members import MEMBERS
from libra_edge.bundle.pack import write_release
from libra_edge.bundle.verify import verify_integrity
from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import compile_checkpoint
from libra_edge.compiler.request import Request
from tests.bundle.examples import facts, facts_body, files
from tests.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff")
    write_tiny_checkpoint(folder / "checkpoint")
    for form in ("loop", "unrolled"):
        compile_checkpoint(
            Request(folder / "checkpoint", out=folder / form, cache=folder / "cache", form=form)
        )
    return folder


def test_a_release_does_not_differ_from_itself(work: Path) -> None:
    manifest = verify_integrity(work / "loop")
    report = read_build_report(work / "loop", manifest)
    assert report is not None
    assert diff_releases(manifest, manifest, report, report) == []


def test_forms_differ_in_what_they_should(work: Path) -> None:
    loop, unrolled = (verify_integrity(work / form) for form in ("loop", "unrolled"))
    changes = {(c.section, c.subject): c for c in diff_releases(loop, unrolled)}
    form = changes["graph", "refiner form"]
    assert (form.before, form.after) == ("loop", "unrolled")
    size = changes["size, bytes", "engines/refiner.onnx"]
    assert size.note == f"x {_size(unrolled) / _size(loop):.2f}"
    assert not [subject for section, subject in changes if section in ("policy", "tools")]


BLOCK = ("attention.query", "attention.key_value", "mlp.0", "mlp.2")
CHECKS = {"tokens equal": (0.9896, 0.98), "p99 action error / range": (0.013, 0.02)}


def _body(recipe: str, precisions: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    body = facts_body() | {"recipe": recipe} | changes
    body["layers"] = [
        {
            "name": f"{part}.{i}.{name}",
            "kernel": "Gemm" if precision == "fp32" else "DynamicQuantizeMatMul",
            "precision": precision,
            "weight_bytes": 4_000_000 if precision == "fp32" else 1_000_000,
            "runs": 1,
        }
        for part in ("planner.backbone.blocks", "refiner.blocks")
        for i in range(12)
        for name, precision in zip(BLOCK, precisions, strict=True)
    ]
    for engine in body["engines"].values():
        work = {recipe: 0.002 if recipe == "fp32" else 0.0015}
        weights = 96_000_000 if recipe == "fp32" else 40_000_000
        engine["work"] = {
            "tera_operations": work,
            "weight_bytes": weights,
            "activation_bytes": 9_000,
        }
    return body


def _write(folder: Path, name: str, body: dict[str, Any], speed: float) -> Path:
    """A release with its build report, as compile leaves them."""
    manifest = write_release(folder / name, ReleaseFacts.model_validate(body), files())
    checks = [
        {"stage": "C ABI vs policy, end to end", "metric": m, "value": v, "threshold": t}
        for m, (v, t) in CHECKS.items()
    ]
    if body["recipe"] == "fp32":
        checks[0] |= {"value": 1.0, "threshold": 0.999}
    report = {
        "release_id": manifest.release_id,
        "medians_ms": {"planner": 8 * speed, "loop": 9 * speed, "unrolled": 99.0},
        "checks": checks,
    }
    (folder / f"{name}.build.json").write_text(json.dumps(report))
    return folder / name


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A release in floats, and one in integers but for one layer of each block, of another arm."""
    folder = tmp_path_factory.mktemp("pair")
    layer = {"stage": "quantise", "subject": "refiner.blocks.0.mlp.0", "choice": "fp32"}
    search = {"stage": "quantise", "subject": "auto-precision", "choice": "24 of 96 kept"}
    data = {"stage": "calibrate", "subject": "calibration data", "choice": f"set {'ab' * 32}"}
    decisions = [{**each, "reason": "why"} for each in (layer, search, data)]
    after = _body("int8", ("int8", "int8", "fp32", "int8"), decisions=decisions)
    after["embodiment"]["actions"][0]["upper"] = 2.0
    before = _body("fp32", ("fp32",) * 4)
    return _write(folder, "old", before, 2.0), _write(folder, "new", after, 1.0)


def test_precision_is_told_block_by_block(pair: tuple[Path, Path]) -> None:
    changes = _changes(pair)
    block = changes["precision", "planner.backbone.blocks.11"]
    assert (block.before, block.after) == ("fp32", "int8; fp32: mlp.0")
    moved = changes["weights moved, bytes", "in fp32"]
    assert (moved.before, moved.after, moved.note) == ("384,000,000", "96,000,000", "x 0.25")
    assert not [subject for section, subject in changes if "mlp" in subject]


def test_parity_stands_before_the_speed_of_the_same_engines(pair: tuple[Path, Path]) -> None:
    changes = _changes(pair)
    tokens = changes["parity", "tokens equal"]
    assert (tokens.before, tokens.after) == ("1 (gate 0.999)", "0.9896 (gate 0.98)")
    speed = changes["median where compiled, ms", "planner / M + refiner"]
    assert (speed.before, speed.after, speed.note) == ("23.33", "11.67", "x 0.50")
    sections = [section for section, _ in changes]
    assert sections.index("parity") < sections.index("median where compiled, ms")


def test_facts_go_by_their_leaves(pair: tuple[Path, Path]) -> None:
    changes = _changes(pair)
    upper = changes["policy", "robot actions x upper"]
    assert (upper.before, upper.after) == ("1.0", "2.0")
    products = changes["graph", "planner products"]
    assert (products.before, products.after) == ("48 Gemm", "36 DynamicQuantizeMatMul, 12 Gemm")
    assert changes["work per call", "planner, MB of weights read"].note == "x 0.42"


def test_long_lists_show_how_many_and_whether_they_are_others(tmp_path: Path) -> None:
    def release(name: str, frames: list[str]) -> Manifest:
        decisions = [
            {"stage": "calibrate", "subject": "frames", "choice": piece, "reason": "stratified"}
            for piece in frames
        ]
        body = facts_body() | {"decisions": decisions}
        return write_release(tmp_path / name, ReleaseFacts.model_validate(body), files())

    first, second = "1:2 " * 60, "3:4 " * 60
    same, other = release("a", [first, second]), release("b", [second, first])
    (change,) = diff_releases(same, other)
    assert change.before.startswith("120 entries, sha256 ")
    assert change.before != change.after


def test_other_content_of_the_same_size_shows(tmp_path: Path) -> None:
    members = files()
    name = max(members, key=lambda each: len(members[each]))
    other = {**members, name: b"x" * len(members[name])}
    first, second = (
        write_release(tmp_path / folder, facts(), content)
        for folder, content in (("a", members), ("b", other))
    )
    (change,) = diff_releases(first, second)
    assert (change.section, change.subject) == ("other bytes", name)


@pytest.mark.parametrize("more", [[], ["--all"]], ids=["short", "all"])
def test_every_value_is_whole_at_80_columns(pair: tuple[Path, Path], more: list[str]) -> None:
    words = ["diff", *map(str, pair), *more]
    done = CliRunner().invoke(program.app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout
    shown = re.sub(r"\s+", "", done.stdout)
    for change in _changes(pair).values() if more else ():
        for cell in (change.subject, change.before, change.after):
            assert cell.split()[0] in shown
    assert ("and 12 more: --all" in done.stdout) == (not more)


def _changes(pair: tuple[Path, Path]) -> dict[tuple[str, str], Change]:
    manifests = [verify_integrity(path) for path in pair]
    reports = [read_build_report(*each) for each in zip(pair, manifests, strict=True)]
    return {(c.section, c.subject): c for c in diff_releases(*manifests, *reports)}


def _size(manifest) -> int:
    return manifest.members["engines/refiner.onnx"].size_bytes


def test_a_report_of_another_release_is_not_read(work: Path, tmp_path: Path) -> None:
    manifest = verify_integrity(work / "loop")
    other = json.loads((work / "unrolled.build.json").read_text())
    (tmp_path / "loop.build.json").write_text(json.dumps(other))
    assert read_build_report(tmp_path / "loop", manifest) is None
    (tmp_path / "loop.build.json").write_text("{")
    assert read_build_report(tmp_path / "loop", manifest) is None


def test_command_fits_80_columns(work: Path) -> None:
    words = ["diff", str(work / "loop"), str(work / "unrolled")]
    done = CliRunner().invoke(program.app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stderr
    tables = [line for line in done.stdout.splitlines() if str(work) not in line]
    assert max(map(len, tables)) <= 80
    assert "…" not in done.stdout
    assert "unrolled" in done.stdout
    body = json.loads(CliRunner().invoke(program.app, [*words, "--json"]).stdout)
    assert body["result"]["changes"]


def test_the_table_of_calibration_shows_by_its_leaves() -> None:
    layers = {"a.b": {"precision": "int8", "input_amax": 1.5}}
    table = {
        "dataset": "one",
        "sha256": "0" * 64,
        "algorithm": "max",
        "frames": [(0, 1), (0, 2)],
        "layers": layers,
    }
    body = facts_body()
    none, some = (
        Manifest.model_validate(body | {"members": _members()} | more)
        for more in ({}, {"calibration": table})
    )
    changes = {c.subject: c for c in diff_releases(none, some)}
    assert {c.section for c in changes.values()} == {"calibration"}
    assert changes["frames"].after == "2"
    assert changes["a.b input"].after == "within 1.5"
    assert none.to_bytes() == Manifest.model_validate(body | {"members": _members()}).to_bytes()
    assert b"calibration" not in none.to_bytes()


def _members() -> dict[str, Any]:
    return {name: {"sha256": "0" * 64, "size_bytes": 1} for name in MEMBERS}
