from __future__ import annotations

import re
import time

import pytest

from libra_edge.cli import _progress
from libra_edge.cli._progress import progress
from libra_edge.deploy.preflight import size


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


def test_bytes_read_as_bytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "INTERVAL_S", 60.0)
    with progress("sent", 3_000_000, amount=size) as advance:
        time.sleep(0.01)
        advance(3_000_000)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"sent: 3.0 MB of 3.0 MB, [\d.]+ [kMG]B/s, 0 s left", line)


def test_the_bar_shows_bytes_rate_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with progress("flash: sent", 3_000_000, amount=size) as advance:
        for _ in range(3):
            advance(1_000_000)
            time.sleep(0.15)
    shown = capsys.readouterr().err
    assert "3.0 MB of 3.0 MB" in shown
    assert re.search(r"[\d.]+ [kMG]B/s", shown)
