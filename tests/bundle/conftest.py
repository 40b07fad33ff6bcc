from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.examples import make_release


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path)
