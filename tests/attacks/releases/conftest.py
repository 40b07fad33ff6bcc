from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime import native_build, tiny_release


@pytest.fixture(scope="session")
def library() -> Path:
    return native_build.cached_library()


@pytest.fixture(scope="session")
def release(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that can be opened."""
    return tiny_release.make_release(tmp_path_factory.mktemp("attacks") / "release", library)
