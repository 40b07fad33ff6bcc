"""Engines on a GPU: what `le_open` refuses, in its order, and what runs once it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from libra_edge.runtime import build
from tests.runtime import fake_gpu
from tests.runtime import tiny_release as tiny

Change = Callable[[Path], None]

OPEN = """
import json, sys
from pathlib import Path
from tests.runtime.test_release import try_open
print(json.dumps([try_open(Path(r), Path(sys.argv[1])) for r in sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def gpu_release(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_gpu.make_release(release, tmp_path_factory.mktemp("gpu") / "release")


def opened(release: Path, library: Path, **how: Any) -> tuple[int, str]:
    ((status, text),) = fake_gpu.run(OPEN, [str(library), str(release)], **how)
    return status, text


def test_it_opens(gpu_release: Path, library: Path) -> None:
    assert opened(gpu_release, library) == (abi.OK, "")


REFUSED = [
    ({"FAKE_GPU_INIT": "100"}, abi.NO_DEVICE, "sees no GPU"),
    ({"FAKE_GPU_COUNT": "0"}, abi.NO_DEVICE, "sees no GPU"),
    ({"FAKE_GPU_INIT": "803"}, abi.DRIVER_TOO_OLD, "803"),
    ({"FAKE_GPU_INIT": "999"}, abi.NO_DRIVER, "999"),
    ({"FAKE_GPU_DRIVER": "579.99"}, abi.DRIVER_TOO_OLD, "needs? NVIDIA driver 580 .* has 579.99"),
    ({"FAKE_GPU_DRIVER": "", "FAKE_GPU_CUDA": "12090"}, abi.DRIVER_TOO_OLD, "13.0.* 12.9"),
    ({"FAKE_GPU_CC": "9.0"}, abi.WRONG_DEVICE, "capability 8.9.* Fake RTX has 9.0"),
    ({"FAKE_GPU_MEMORY_GIB": "7.5"}, abi.DEVICE_TOO_SMALL, "8.0 GiB.* 7.5 GiB"),
    ({"FAKE_GPU_COUNT": "2"}, abi.SEVERAL_DEVICES, "CUDA_VISIBLE_DEVICES"),
    ({"FAKE_GPU_EP_COUNT": "0"}, abi.NO_DEVICE, "TensorRT for RTX finds no GPU"),
    ({"FAKE_GPU_EP_COUNT": "2"}, abi.SEVERAL_DEVICES, "finds 2 devices"),
    ({"FAKE_GPU_STARTS_NOT": "1"}, abi.NO_PROVIDER, "the provider cannot start"),
    ({"FAKE_GPU_REFUSES": "1"}, abi.ENGINE_REFUSED, "cannot run this engine"),
    ({"FAKE_GPU_FAULT": "run"}, abi.ENGINE, "fallen off the bus"),
]


@pytest.mark.parametrize(("settings", "status", "words"), REFUSED)
def test_a_machine_that_does_not_fit(
    gpu_release: Path, library: Path, settings: dict[str, str], status: int, words: str
) -> None:
    found, text = opened(gpu_release, library, settings=settings)
    assert found == status, text
    assert __import__("re").search(words, text), text


def test_a_machine_without_a_driver(gpu_release: Path, library: Path) -> None:
    status, text = opened(gpu_release, library, driver=False)
    assert status == abi.NO_DRIVER
    assert text.startswith("This machine has no NVIDIA driver: libcuda.so.1")
    assert text.count(". ") == 0
