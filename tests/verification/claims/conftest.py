"""Releases for RTX GPUs, on machines that have none of NVIDIA's packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from libra_edge.catalog.providers import PROVIDERS
from tests.providers import stand_in


@pytest.fixture(scope="module", autouse=True)
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        wanted = PROVIDERS["NvTensorRTRTXExecutionProvider"]
        patch.syspath_prepend(stand_in(tmp_path_factory.mktemp("provider"), wanted))
        yield
