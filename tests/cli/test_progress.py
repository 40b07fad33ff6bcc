from __future__ import annotations

import time

import pytest

from libra_edge.cli import _progress
from libra_edge.cli._progress import progress


def test_a_long_silent_piece_is_still_seen_to_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "INTERVAL_S", 0.05)
    with progress("compile", 3, even=False) as advance:
        advance(1, "runtime: compiling")
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("compile: 1/3, ") for line in lines)
    assert all(line.endswith("runtime: compiling") for line in lines)
    assert "left" not in "".join(lines)  # uneven pieces: nobody knows
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_even_pieces_tell_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "INTERVAL_S", 60.0)
    with progress("episodes", 2) as advance:
        advance(1, "one")
        advance(1, "two")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("episodes: 2/2, ")
    assert "0 s left" in line
    assert line.endswith("two")
