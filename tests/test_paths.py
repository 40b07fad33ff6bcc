"""Public functions take a path as text as well as `Path`."""

from __future__ import annotations

import importlib
import inspect
import platform
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding.policy import Policy
from libra_edge.bundle.pack import pack_release, unpack_release
from libra_edge.bundle.verify import is_release, open_release, verify_integrity
from libra_edge.compiler.request import Request
from libra_edge.paths import StrPath
from libra_edge.runtime.build import onnxruntime_library
from libra_edge.verification.request import Request as Verify

KEPT = Path(__file__).parent / "golden/0.1.0/fp32"
PUBLIC = (
    "binding.live_policy.LivePolicy",
    "binding.policy.Policy",
    "binding.recorder.Recorder",
    "binding.replay.replay",
    "bundle.pack.pack_release",
    "bundle.pack.unpack_release",
    "bundle.verify.is_release",
    "bundle.verify.open_release",
    "bundle.verify.verify_integrity",
    "data.collect.collect",
    "data.lerobot.Dataset",
    "deploy.provision.provision",
    "evaluation.closed_loop.open_controller",
    "evaluation.torch_controller.TorchController",
    "policy.checkpoint.load_checkpoint",
    "policy.config.read_config",
    "policy.tokenizer.Tokenizer",
    "training.run.prepare",
    "api.compile_checkpoint",
    "api.verify_release",
)


def find(name: str) -> Callable[..., Any]:
    module, _, own = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"libra_edge.{module}"), own)
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_no_public_function_wants_a_path_object(name: str) -> None:
    found = find(name)
    function = found.__init__ if inspect.isclass(found) else found  # type: ignore[misc]
    written = function.__annotations__
    assert any("StrPath" in str(kind) for kind in written.values())
    assert not [key for key, kind in written.items() if key != "return" and kind == "Path"]
    assert str in typing.get_args(StrPath)


def test_requests_turn_text_into_paths() -> None:
    request = Request("checkpoint", data="data", out="out")  # type: ignore[arg-type]
    assert (request.checkpoint, request.data) == (Path("checkpoint"), Path("data"))
    assert (request.out, request.cache) == (Path("out"), None)
    again = Verify("release", cache="b")  # type: ignore[arg-type]
    assert (again.release, again.cache) == (Path("release"), Path("b"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kept release is for x86-64")
def test_releases_open_from_text_and_from_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    release = tmp_path / "release"
    shutil.copytree(KEPT, release)
    shutil.copyfile(onnxruntime_library(), release / "lib/libonnxruntime.so")
    packed = str(tmp_path / "one.libra")
    manifest = pack_release(str(release), packed)
    assert is_release(packed)
    assert verify_integrity(packed) == manifest == open_release(str(release)).manifest
    unpack_release(packed, str(tmp_path / "again"))
    ids = set()
    for path in (str(release), release, packed, Path(packed), str(tmp_path / "again")):
        with Policy(path) as policy:
            ids.add(policy.info.manifest_sha256)
    assert len(ids) == 1
