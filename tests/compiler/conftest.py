from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from libra_edge.compiler.graphs.make_graphs import Front
from libra_edge.compiler.pipeline import Compiled, compile_checkpoint
from libra_edge.compiler.request import Request
from libra_edge.policy.checkpoint import Checkpoint
from tests.compiler.variants import make_front
from tests.tiny import write_tiny_checkpoint

Fronts = Callable[[str], tuple[Checkpoint, Front]]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiler")


@pytest.fixture(scope="session")
def fronts(work: Path) -> Fronts:
    return cache(lambda name: make_front(name, work))


@pytest.fixture(scope="session")
def checkpoint(work: Path) -> Path:
    return write_tiny_checkpoint(work / "ddim_sample")


@pytest.fixture(scope="session")
def compiled(work: Path, checkpoint: Path) -> Compiled:
    request = Request(checkpoint, out=work / "release", cache=work / "cache", name="tiny-demo")
    return compile_checkpoint(request)
