"""Every extra works alone: installs each from the built wheel, by itself, and runs its commands.

    python -m tests.packaging.extras field compile --python python3.12

Builds the wheel once. Each environment is new, empty and removed afterwards; nothing of the source
tree can be imported from it. Leaves with 1 if a command does not do what it should.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libra_edge.runtime.build import onnxruntime_library
from tests.packaging.built_wheel import ROOT, build_wheel

KEPT = ROOT / "tests/golden/0.1.0"
DEMO = ROOT / "examples/metaworld/checkpoint"
CHECKPOINT, DATASET = KEPT / "checkpoint", KEPT / "calibration"
EXTRAS = ("field", "compile", "train", "sim", "rtx", "openvino", "fleet")
ROBOTS = "all: {{hosts: {{arm: {{ansible_connection: local, libra_root: {root}}}}}}}\n"
RECIPE = """
[training]
steps = 2
batch = 4
precision = "float32"
[policy]
instruction_length = 5
chunk = 3
chunks_per_plan = 2
"""


@dataclass(frozen=True)
class Step:
    """One command, and how it has to end: exit status, and words on stdout or stderr."""

    words: str
    status: int = 0
    says: str = ""


FIELD = (
    Step("--version"),
    Step("doctor"),
    Step("targets"),
    Step("recipes"),
    Step("inspect {release} --layers"),
    Step("pack {release} --out packed.libra", says="packed.libra"),
    Step("inspect packed.libra"),
    Step("unpack packed.libra --out unpacked"),
    Step("diff {release} unpacked"),
    Step("flash {release} ./robot --allow-unsigned --dry-run", says="nothing was changed"),
    Step("status ./robot", 6, "no-agent"),
    Step("rollback ./robot", 6, "no-agent"),
    Step("doctor --robot ./robot", says="can take a release"),
    Step("flash {release} --inventory robots.yml --allow-unsigned", 1, "libra-edge[fleet]"),
    Step("verify unpacked --golden-only", says="0 failed"),
    Step("provision unpacked"),
    Step("keys generate robot.key"),
    Step("keys trust add trust.json robot.pub"),
    Step("sign unpacked --key robot.key", says="signed by"),
    Step("verify unpacked --signature-only --trust trust.json", says="signed by"),
    Step("inspect {checkpoint}"),
    Step("estimate {checkpoint} --target cpu-x86_64", 2, "pip install 'libra-edge[compile]'"),
    Step("simulate {release}", 4, "the policy is for tiny, the simulator has metaworld-sawyer"),
    Step("simulate {release} --replay {dataset}", 2, "pip install 'libra-edge["),
    Step("simulate {demo}", 2, "pip install 'libra-edge["),
    Step("compile {checkpoint}", 2, "pip install 'libra-edge[compile]'"),
    Step("collect --out demonstrations", 2, "pip install 'libra-edge[sim]'"),
    Step("train {dataset} --out run", 2, "pip install 'libra-edge[train]'"),
    Step("doctor --extra compile", 1, "pip install 'libra-edge[compile]'"),
)
# Of the dataset's 240 frames.
CALIBRATE = "--calibrate {dataset} --calibration-samples 128"
COMPILE = (
    Step("doctor --extra compile"),
    Step("compile {checkpoint} --out made", says="checks passed"),
    Step("verify made --checkpoint {checkpoint} --data {dataset} --quick", says="0 failed"),
    Step("compile {checkpoint} --recipe int8", 2, "--calibrate"),
    Step(f"compile {{checkpoint}} --recipe int8 {CALIBRATE} --out made8", says="checks passed"),
    Step("inspect made8 --layers", says="int8"),
    Step("verify made8 --checkpoint {checkpoint} --calibrate {dataset} --quick", says="0 failed"),
    Step(f"sensitivity {{checkpoint}} --recipe int8 {CALIBRATE} --out found"),
    Step("simulate made8 --replay {dataset}"),
)
TRAIN = (
    Step("doctor --extra train"),
    Step("train {dataset} --recipe recipe.toml --out run", says="trained 2 steps"),
    Step("inspect run"),
)
SIM = (
    Step("doctor --extra sim"),
    Step("collect --out demonstrations --task faucet-open --episodes 1", says="1 episodes"),
    Step("simulate {release} --replay {dataset}"),
    Step("simulate {release} --episodes 1", 4, "metaworld-sawyer"),
    Step("simulate {demo} --episodes 1", 2, "pip install 'libra-edge[compile]'"),
)
RTX = (Step("doctor --extra rtx"),)
OPENVINO = (Step("doctor --extra openvino"),)
FLEET = (
    Step("doctor --extra fleet"),
    Step(
        "flash {release} --inventory robots.yml --allow-unsigned --dry-run",
        says="1 of 1 robots",
    ),
)
STEPS = {
    **{"field": FIELD, "compile": COMPILE, "train": TRAIN, "sim": SIM},
    **{"rtx": RTX, "openvino": OPENVINO, "fleet": FLEET},
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", default=list(EXTRAS), metavar="|".join(EXTRAS))
    parser.add_argument("--python", action="append", help="interpreter; may be repeated")
    parser.add_argument("--wheel", type=Path, help="a wheel that was built before")
    parser.add_argument(
        "--without-libraries", action="store_true", help="a wheel that compiles its runtime later"
    )
    asked = parser.parse_args()
    if unknown := set(asked.extras) - set(EXTRAS):
        parser.error(f"no such extra: {', '.join(sorted(unknown))}")
    wrong = []
    with tempfile.TemporaryDirectory(prefix="libra-edge-extras-") as name:
        folder = Path(name)
        print("the wheel", flush=True)
        without = ("--config-settings", "native-libraries=none") if asked.without_libraries else ()
        wheel = asked.wheel or build_wheel(folder, *without)
        release = kept_release(folder)
        for python in asked.python or [sys.executable]:
            for extra in asked.extras:
                wrong += check(extra, python, wheel.resolve(), release, folder)
    print(f"{len(wrong)} commands did not do what they should", *wrong, sep="\n  ")
    sys.exit(bool(wrong))


def said_by(*command: str) -> str:
    """What a program prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def kept_release(folder: Path) -> Path:
    """A release to look at in environments that cannot compile."""
    release = folder / "release"
    shutil.copytree(KEPT / "fp32", release)
    shutil.copyfile(onnxruntime_library(), release / "lib/libonnxruntime.so")
    return release


def check(extra: str, python: str, wheel: Path, release: Path, folder: Path) -> list[str]:
    """Install one extra by itself and run its commands; returns the commands that went wrong."""
    version = said_by(python, "-c", "import platform; print(platform.python_version())").strip()
    print(f"== {extra}, Python {version}", flush=True)
    environment, work = folder / "environment", folder / "work"
    work.mkdir()
    try:
        begin = time.monotonic()
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        name = "libra-edge" if extra == "field" else f"libra-edge[{extra}]"
        pip = [str(environment / "bin/pip"), "install", "-q", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, f"{name} @ {wheel.as_uri()}"], check=True)
        print(f"   installed in {time.monotonic() - begin:.0f} s", flush=True)
        (work / "recipe.toml").write_text(RECIPE)
        (work / "robots.yml").write_text(ROBOTS.format(root=work / "robot"))
        return run(STEPS[extra], environment, work, release, f"{extra}, Python {version}")
    finally:
        shutil.rmtree(environment, ignore_errors=True)
        shutil.rmtree(work)


def run(
    steps: Sequence[Step], environment: Path, work: Path, release: Path, where: str
) -> list[str]:
    """Run the commands in order, in a folder where nothing of the source tree is found."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    own |= {"XDG_CACHE_HOME": str(work / "cache"), "OMP_NUM_THREADS": "1"}
    places = {"release": release, "checkpoint": CHECKPOINT, "dataset": DATASET, "demo": DEMO}
    wrong = []
    for step in steps:
        words = [word.format(**places) for word in step.words.split()]
        begin = time.monotonic()
        command = [str(environment / "bin/libra-edge"), *words]
        result = subprocess.run(command, cwd=work, env=own, capture_output=True, text=True)
        said = result.stdout + result.stderr
        good = result.returncode == step.status and step.says in said and "Traceback" not in said
        verdict = "ok   " if good else "WRONG"
        print(f"   {verdict} {time.monotonic() - begin:5.1f} s  {step.words}", flush=True)
        if not good:
            print(f"status {result.returncode}, not {step.status}:\n{said[-3000:]}", flush=True)
            wrong.append(f"{where}: {step.words}")
    return wrong


if __name__ == "__main__":
    main()
