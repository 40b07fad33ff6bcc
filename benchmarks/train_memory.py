"""How much memory `libra-edge train` takes: 640 x 480, two cameras, up to 20,000 frames.

Writes synthetic datasets of two sizes, trains a few steps on each in a process of its own, and
writes docs/measurements/train-memory.md: peak memory, disk and time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from libra_edge.data.lerobot_writer import DatasetWriter
from libra_edge.data.types import Episode
from libra_edge.policy.config import ActionDim, Embodiment, StateDim

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/measurements/train-memory.md"
HEIGHT, WIDTH, CAMERAS, FPS = 480, 640, 2, 30
SEEN_HEIGHT, SEEN_WIDTH = 96, 128
EPISODE_STEPS, FILE_EPISODES = 100, 10
FILE_FRAMES = EPISODE_STEPS * FILE_EPISODES
LIMIT_MB = 4096
STEPS = 20
# Runs the command and says what its process held at most; getrusage would count the parent too.
TRAIN = """
import sys
from libra_edge.cli.app import app
try:
    app(sys.argv[1:])
finally:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print("peak_kb", status["VmHWM"].split()[0], file=sys.stderr)
"""


@dataclass(frozen=True)
class Run:
    """One training run: frames, peak memory, time in all and until training began, disk."""

    frames: int
    peak_mb: float
    seconds: float
    decode_s: float
    stored_mb: float
    dataset_mb: float


def robot(height: int, width: int) -> Embodiment:
    """Six joints and two cameras."""
    names = [f"joint_{i}" for i in range(6)]
    return Embodiment(
        name="synthetic",
        control_hz=FPS,
        cameras=("front", "wrist"),
        image_height=height,
        image_width=width,
        state=tuple(StateDim(name=name, unit="rad") for name in names),
        actions=tuple(
            ActionDim(name=name, unit="rad", kind="absolute", lower=-2, upper=2) for name in names
        ),
    )


def write(path: Path, frames: int) -> None:
    """A dataset of moving gradients whose description asks for small pictures.

    One file of episodes is encoded; the others are copies of it with their own numbers, as encoding
    is no part of what is measured.
    """
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))
    with DatasetWriter(
        path, robot(HEIGHT, WIDTH), "lossless", {}, episodes_per_file=FILE_EPISODES
    ) as writer:
        for number in range(FILE_EPISODES):
            images = np.empty((EPISODE_STEPS, CAMERAS, HEIGHT, WIDTH, 3), np.uint8)
            for step in range(EPISODE_STEPS):
                for view in range(CAMERAS):
                    shade = (ramp // 4 + 3 * step + 80 * view + number) % 200
                    images[step, view] = shade[..., None].astype(np.uint8)
            time_s = np.arange(EPISODE_STEPS)[:, None] / FPS
            states = np.sin(time_s + np.arange(6)) + random.normal(0, 0.01, (EPISODE_STEPS, 6))
            states = states.astype(np.float32)
            told = ("pick the red cube", "pick the blue cube")[number % 2]
            writer.add(Episode(images, states, states, told, told, True, 0))
    repeat(path, frames // FILE_FRAMES)
    file = path / "meta/libra_edge.json"
    content = {"embodiment": robot(SEEN_HEIGHT, SEEN_WIDTH).model_dump(mode="json")}
    file.write_text(json.dumps(content))


def repeat(path: Path, times: int) -> None:
    """Copy the first file of every kind until there are `times`, and list their episodes."""
    first = path / "data/chunk-000/file-000.parquet"
    index_file = path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.ParquetFile(first).read()
    rows = pq.ParquetFile(index_file).read().to_pylist()
    listed = list(rows)
    for number in range(1, times):
        name = f"file-{number:03d}"
        columns = {"episode_index": number * FILE_EPISODES, "index": number * FILE_FRAMES}
        moved = table
        for column, offset in columns.items():
            at = moved.column_names.index(column)
            moved = moved.set_column(at, column, pc.add(moved[column], offset))
        pq.write_table(moved, first.with_name(f"{name}.parquet"))
        for video in path.glob("videos/*/chunk-000/file-000.mp4"):
            shutil.copy(video, video.with_name(f"{name}.mp4"))
        for row in rows:
            changed = dict(row)
            for key, value in row.items():
                if key.endswith("/file_index") and not key.startswith("meta/"):
                    changed[key] = number
                elif key == "episode_index":
                    changed[key] = value + number * FILE_EPISODES
                elif key in ("dataset_from_index", "dataset_to_index"):
                    changed[key] = value + number * FILE_FRAMES
            listed.append(changed)
    pq.write_table(pa.Table.from_pylist(listed), index_file)
    file = path / "meta/info.json"
    info = json.loads(file.read_text())
    info |= {"total_episodes": len(listed), "total_frames": times * FILE_FRAMES}
    file.write_text(json.dumps(info))


def measure(folder: Path, frames: int) -> Run:
    """Train a few steps on `frames` frames in a process of its own."""
    dataset, out = folder / f"set-{frames}", folder / f"run-{frames}"
    words = [sys.executable, __file__, "--write", str(dataset), "--frames", str(frames)]
    subprocess.run(words, check=True)
    recipe = folder / "recipe.toml"
    recipe.write_text(f"[training]\nsteps = {STEPS}\nbatch = 64\nsave_every = {STEPS}\n")
    words = ["train", str(dataset), "--recipe", str(recipe), "--out", str(out)]
    started = time.monotonic()
    done = subprocess.Popen(
        [sys.executable, "-c", TRAIN, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    peak_kb, decode_s, stored_mb = 0, 0.0, 0.0
    assert done.stderr is not None
    for line in done.stderr:
        sys.stderr.write(line)
        if line.startswith("peak_kb"):
            peak_kb = int(line.split()[1])
        if line.startswith("training on"):
            decode_s = time.monotonic() - started
            stored_mb = size_mb(out)
    if done.wait() != 0:
        raise SystemExit(f"training on {frames} frames failed")
    run = Run(
        frames,
        peak_kb / 1024,
        time.monotonic() - started,
        decode_s,
        stored_mb,
        size_mb(dataset),
    )
    shutil.rmtree(dataset)
    shutil.rmtree(out)
    return run


def size_mb(folder: Path) -> float:
    """Bytes of all files below a folder, in MB of 10^6."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def page(runs: list[Run]) -> str:
    """The measured page."""
    cores = len(os.sched_getaffinity(0))
    rows = [
        f"| {run.frames:,} | {run.peak_mb:.0f} | {run.stored_mb:.0f} | {run.dataset_mb:.0f} | "
        f"{run.decode_s:.0f} | {run.frames / run.decode_s:.0f} |"
        for run in runs
    ]
    first, last = runs[0], runs[-1]
    growth_kb = (last.peak_mb - first.peak_mb) * 1024 / (last.frames - first.frames)
    decoded_kb = CAMERAS * SEEN_HEIGHT * SEEN_WIDTH * 3 / 1024
    return "\n".join(
        [
            "# Memory of training",
            "",
            "Written by `make bench-train-memory`. A synthetic LeRobot dataset "
            f"({WIDTH} x {HEIGHT}, {CAMERAS} cameras, lossless H.264, episodes of {EPISODE_STEPS} "
            f"frames; every file holds the same {FILE_FRAMES:,} frames under its own numbers) is "
            f"trained on for {STEPS} steps with the default recipe (batch 64). The robot sees "
            f"{SEEN_WIDTH} x {SEEN_HEIGHT}. Peak memory is the training process's own (`VmHWM`), "
            "examination, decoding and training together; the time until training begins is "
            "examination and decoding, with one thread on a shared "
            f"{platform.machine()} machine of {cores} cores that did other work at the same time: "
            "a bound from above, not a speed.",
            "",
            "| frames | peak memory, MiB | stored pictures, MB | dataset, MB | until training, s | "
            "frames per s |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Memory grows by {growth_kb:.2f} KiB per frame (states, actions and index; the rest "
            f"is noise); a frame's pictures take {decoded_kb:.0f} KiB decoded, and "
            f"{CAMERAS * HEIGHT * WIDTH * 3 // 1024} KiB as recorded. The bound is {LIMIT_MB} MiB "
            "at 20,000 frames.",
            "",
        ]
    )


def main() -> None:
    """Measure and write the page; exit status 1 where the bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write(options.write, options.frames[0])
        return
    with tempfile.TemporaryDirectory(prefix="train-memory-") as folder:
        runs = [measure(Path(folder), frames) for frames in options.frames]
    PAGE.write_text(page(runs), encoding="utf-8")
    for run in runs:
        print(f"{run.frames} frames: {run.peak_mb:.0f} MiB, {run.decode_s:.0f} s")
    if max(run.peak_mb for run in runs) > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_MB} MiB")


if __name__ == "__main__":
    main()
