"""Writing a dataset holds no more than an episode's pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Writes a dataset of many episodes, then prints the peak of its memory.
WRITE = """
import sys
import numpy as np
from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from tests.data.test_lerobot import _body
rows = np.zeros((40, 3), np.float32)
images = np.zeros((40, 2, 64, 64, 3), np.uint8)
with DatasetWriter(sys.argv[1], _body(), "lossless") as writer:
    for number in range(int(sys.argv[2])):
        writer.add(Episode(images, rows, rows[:, :2], "a", "a", True, number))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])
"""


def test_memory_of_writing_does_not_grow_with_episodes(tmp_path: Path) -> None:
    """What `collect` keeps of an episode that is written are its vectors."""
    peaks_mb: list[float] = []
    for count in (5, 80):
        words = [sys.executable, "-c", WRITE, str(tmp_path / str(count)), str(count)]
        done = subprocess.run(
            words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        peaks_mb.append(int(done.stdout.split()[-1]) / 1024)
    pictures_mb = 75 * 40 * 2 * 64 * 64 * 3 / 2**20
    assert peaks_mb[1] - peaks_mb[0] < 0.15 * pictures_mb, peaks_mb
