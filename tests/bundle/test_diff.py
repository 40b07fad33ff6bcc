from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libra_edge.bundle.diff import diff_releases, read_build_report
from libra_edge.bundle.verify import verify_release
from libra_edge.cli import app as program
from libra_edge.compiler.pipeline import Request, compile_checkpoint
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
    manifest = verify_release(work / "loop")
    report = read_build_report(work / "loop", manifest)
    assert report is not None
    assert diff_releases(manifest, manifest, report, report) == []


def test_forms_differ_in_what_they_should(work: Path) -> None:
    loop, unrolled = (verify_release(work / form) for form in ("loop", "unrolled"))
    changes = {(c.section, c.subject): c for c in diff_releases(loop, unrolled)}
    form = changes["engines", "refiner form"]
    assert (form.before, form.after) == ("loop", "unrolled")
    size = changes["size, bytes", "engines/refiner.onnx"]
    assert size.note == f"x {_size(unrolled) / _size(loop):.2f}"
    assert not [subject for section, subject in changes if section in ("policy", "tools")]


def _size(manifest) -> int:
    return manifest.members["engines/refiner.onnx"].size_bytes


def test_a_report_of_another_release_is_not_read(work: Path, tmp_path: Path) -> None:
    manifest = verify_release(work / "loop")
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
    assert "unrolled" in done.stdout
    body = json.loads(CliRunner().invoke(program.app, [*words, "--json"]).stdout)
    assert body["result"]["changes"]
