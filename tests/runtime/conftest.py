from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libra_edge.binding.policy import Policy
from tests.runtime import native_build, tiny_release


@pytest.fixture(scope="session")
def library() -> Path:
    return native_build.cached_library()


@pytest.fixture(scope="session")
def release(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release.make_release(tmp_path_factory.mktemp("runtime") / "release", library)


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes one copy of the release whose members can be replaced."""
    return lambda: tiny_release.link_release(release, tmp_path / "copy")


@pytest.fixture
def policy(release: Path) -> Iterator[Policy]:
    with Policy(release) as opened:
        yield opened
