"""The public face: few names, lazy, typed, and they do what they say."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import libra_edge
from libra_edge import api
from libra_edge.compiler.request import Request as CompileRequest
from libra_edge.verification.request import Request as VerifyRequest
from tests.tiny import write_tiny_checkpoint

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/python/compile_and_run.py"


def test_the_names_are_those_of_the_page() -> None:
    page = (ROOT / "docs/reference/python.md").read_text("utf-8")
    names = [line.strip("# `") for line in page.splitlines() if line.startswith("## ")]
    assert names == sorted(name for name in libra_edge.__all__ if not name.startswith("_"))
    assert set(dir(libra_edge)) == set(libra_edge.__all__)
    with pytest.raises(AttributeError, match="compile_everything"):
        _ = libra_edge.compile_everything  # type: ignore[attr-defined]


def test_importing_them_loads_nothing_heavy() -> None:
    code = (
        "import sys; from libra_edge import Policy, compile_checkpoint, open_release, "
        "verify_release; heavy = {'torch', 'onnx', 'onnxruntime', 'pyarrow', 'av'} & set("
        "sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("function", "request_type", "left_out"),
    [
        (api.compile_checkpoint, CompileRequest, set()),
        (api.verify_release, VerifyRequest, {"closed_loop"}),
    ],
)
def test_every_part_of_a_request_can_be_said(
    function: object, request_type: type, left_out: set[str]
) -> None:
    said = inspect.signature(function).parameters  # type: ignore[arg-type]
    asked = {field.name: field.default for field in fields(request_type)}
    assert set(said) - {"on_stage"} == set(asked) - left_out
    for name, parameter in said.items():
        if name in asked and parameter.default is not inspect.Parameter.empty:
            assert parameter.default == asked[name], name


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    run = subprocess.run(
        [sys.executable, str(EXAMPLE), str(checkpoint), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["dx", "q", "grip", "step 0"]
    assert lines[-1] == "step 0: RUNNING"
