"""What is said where another architecture's ONNX Runtime cannot be had."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from libra_edge.catalog import load_target
from libra_edge.errors import LibraError
from libra_edge.runtime import fetch
from libra_edge.runtime.fetch import fetch_onnxruntime

TARGET = load_target("jetson-agx-orin")


def pip(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(fetch.subprocess, "run", answer)


def test_a_wheel_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "one.whl", "w") as archive:
            archive.writestr("onnxruntime/capi/libonnxruntime.so.9.9.9", "library")
            archive.writestr("onnxruntime/capi/../../../escaped.so", "elsewhere")
            archive.writestr("onnxruntime/__init__.py", "")
        return subprocess.CompletedProcess(command, 0, "", "")

    pip(monkeypatch, download)
    for _ in range(2):
        library = fetch_onnxruntime(TARGET, tmp_path)
        assert library.read_text() == "library"
    assert len(calls) == 1
    assert not list(tmp_path.rglob("escaped.so"))
    assert not list(tmp_path.rglob("*.whl"))


def test_why_nothing_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "first\nERROR: no such version\n")

    def never(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 600)

    for answer, why in ((refused, "no such version"), (never, "within 600 s")):
        pip(monkeypatch, answer)
        with pytest.raises(LibraError) as caught:
            fetch_onnxruntime(TARGET, tmp_path)
        assert caught.value.code == "onnxruntime-not-fetched"
        assert why in caught.value.fact
        assert "package index" in caught.value.remedy
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(LibraError) as caught:
        fetch_onnxruntime(TARGET, tmp_path)
    assert "ensurepip" in caught.value.remedy
