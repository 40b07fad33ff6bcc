"""Engines on a GPU: what `le_open` refuses, in its order, and what runs once it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from libra_edge.binding import abi
from tests.runtime import fake_gpu
from tests.runtime import tiny_release as tiny

OPEN = """
import json, sys
from pathlib import Path
from tests.runtime.test_release import try_open
print(json.dumps([try_open(Path(r), Path(sys.argv[1])) for r in sys.argv[2:]]))
"""


RUN = """
import json, os, sys, time
import numpy as np
from libra_edge.binding.policy import Policy
from libra_edge.policy.execution.noise import chunk_noise
from tests.runtime import fake_gpu, tiny_release as tiny
from pathlib import Path

def counted():
    path = os.environ.get("FAKE_GPU_COUNTERS")
    return fake_gpu.counted(Path(path)) if path else {}

out = {}
rng = np.random.default_rng(5)
with Policy(sys.argv[1]) as policy:
    out["counted_open"] = counted()
    out["engines"] = [vars(policy.engine(name)) for name in ("planner", "refiner")]
    images, state = tiny.observation(rng)
    tokens = rng.integers(0, 9, tiny.T)
    noise = chunk_noise(3, 0, (tiny.H, tiny.D))
    intent, margin = policy.plan(images, tokens, state)
    actions = policy.refine(images, state, intent[: tiny.H], noise)
    wanted = tiny.plan(images, tokens, state)
    out["plan"] = bool((intent == wanted[0]).all() and (margin == wanted[1]).all())
    out["intent"], out["actions"] = intent.tolist(), actions.tolist()
    out["counted_calls"] = counted()
    policy.set_instruction(tokens)
    out["steps"] = []
    for _ in range(9):
        policy.observe(*tiny.observation(rng))
        action, info = policy.step()
        out["steps"].append([action.tolist(), info.state.name, info.reason])
    out["counted_steps"] = counted()
print(json.dumps(out))
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
    ({"FAKE_GPU_DRIVER": "579.99"}, abi.DRIVER_TOO_OLD, "need NVIDIA driver 580 .* has 579.99"),
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
    assert re.search(words, text), text


def test_a_machine_without_a_driver(gpu_release: Path, library: Path) -> None:
    status, text = opened(gpu_release, library, driver=False)
    assert status == abi.NO_DRIVER
    assert text.startswith("This machine has no NVIDIA driver: libcuda.so.1")
    assert text.count(". ") == 0


# ---- what runs --------------------------------------------------------------------------------


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("plan", "intent", "actions", "steps")}


def test_it_gives_what_the_cpu_gives_bit_for_bit(
    gpu_release: Path, release: Path, tmp_path: Path
) -> None:
    counters = tmp_path / "counters"
    on_gpu = fake_gpu.run(RUN, [str(gpu_release)], settings=fake_gpu.new_counters(counters))
    on_cpu = fake_gpu.run(RUN, [str(release)], driver=False)
    assert on_gpu["plan"]
    assert without_times(on_gpu) == without_times(on_cpu)
    assert {state for _, state, _ in on_gpu["steps"]} == {"RUNNING"}


def test_a_call_copies_what_goes_in_and_out_and_allocates_nothing(
    gpu_release: Path, tmp_path: Path
) -> None:
    counters = tmp_path / "counters"
    found = fake_gpu.run(RUN, [str(gpu_release)], settings=fake_gpu.new_counters(counters))
    facts = {"device": "Fake RTX", "driver": "580.65.06", "device_memory_bytes": 24 * 2**30}
    engine = {"status": "compiled", "provider": fake_gpu.PROVIDER.name, **facts}
    assert found["engines"] == [engine, engine]
    before, after = found["counted_open"], found["counted_calls"]
    gained = {name: after[name] - before[name] for name in before}
    inputs = len(tiny.PLANNER_INPUTS) + len(tiny.REFINER_INPUTS)
    outputs = len(tiny.PLANNER_OUTPUTS) + len(tiny.REFINER_OUTPUTS)
    assert gained == {"copies_in": inputs, "copies_out": outputs, "allocations": 0, "calls": 2}
    assert found["counted_steps"]["allocations"] == before["allocations"]


def test_each_engine_has_a_stream_the_refiners_first(
    gpu_release: Path, library: Path, tmp_path: Path
) -> None:
    log = tmp_path / "streams"
    assert opened(gpu_release, library, settings={"FAKE_GPU_STREAMS": str(log)})[0] == abi.OK
    rows = [line.split() for line in log.read_text().splitlines()]
    assert [(row[0], row[1]) for row in rows] == [("1", "-5"), ("1", "0")]


@pytest.mark.parametrize("engine", ["planner", "refiner"])
@pytest.mark.parametrize("fault", ["nan", "run"])
def test_a_device_that_goes_wrong_is_a_fault(gpu_release: Path, engine: str, fault: str) -> None:
    code = f"""
import json, os, sys
import numpy as np
from libra_edge.binding.policy import Policy
from tests.runtime import tiny_release as tiny
rng = np.random.default_rng(1)
with Policy(sys.argv[1]) as policy:
    policy.set_instruction(rng.integers(0, 9, tiny.T))
    policy.observe(*tiny.observation(rng))
    first = policy.step()[1].state.name
    policy.restart(0)
    policy.observe(*tiny.observation(rng))
    os.environ["FAKE_GPU_ONLY"], os.environ["FAKE_GPU_FAULT"] = "{engine}", "{fault}"
    info = policy.step()[1]
    del os.environ["FAKE_GPU_FAULT"]
    again = policy.step()[1]
    policy.restart(0)
    policy.observe(*tiny.observation(rng))
    print(json.dumps([first, info.state.name, info.reason, info.detail, again.state.name,
                      policy.step()[1].state.name]))
"""
    first, state, reason, detail, latched, after = fake_gpu.run(code, [str(gpu_release)])
    words = "not finite" if fault == "nan" else "failed"
    assert (first, state, latched, after) == ("RUNNING", "FAULT", "FAULT", "RUNNING")
    assert engine in reason
    assert words in reason
    assert fault == "nan" or "fallen off the bus" in detail


def test_the_first_call_is_no_slower_than_the_next(gpu_release: Path) -> None:
    code = """
import json, sys, time
import numpy as np
from libra_edge.binding.policy import Policy
from tests.runtime import tiny_release as tiny
rng = np.random.default_rng(1)
images, state = tiny.observation(rng)
tokens = rng.integers(0, 9, tiny.T)
begun = time.perf_counter()
with Policy(sys.argv[1]) as policy:
    opened = time.perf_counter() - begun
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        policy.plan(images, tokens, state)
        times.append(time.perf_counter() - begun)
print(json.dumps([opened, *times]))
"""
    settings = {"FAKE_GPU_FAULT": "first_slow_ms:400"}
    opened, first, *_ = fake_gpu.run(code, [str(gpu_release)], settings=settings)
    assert opened > 0.8
    assert first < 0.2


ASYNC = """
import json, os, sys, time
import numpy as np
from libra_edge.binding.policy import Policy
from libra_edge.binding.values import RunOptions
from tests.runtime import tiny_release as tiny

rng = np.random.default_rng(1)
out = {"states": [], "slow": [], "after": []}

def ticks(policy, count, to):
    for _ in range(count):
        now = time.monotonic_ns()
        policy.observe(*tiny.observation(rng), now)
        info = policy.tick(now)[1]
        out[to].append([info.state.name, info.reason])
        time.sleep(0.05)

with Policy(sys.argv[1]) as policy:
    policy.set_instruction(rng.integers(0, 9, tiny.T))
    policy.start(RunOptions(engine_timeout_s=0.3))
    ticks(policy, 20, "states")
    os.environ["FAKE_GPU_FAULT"] = "slow_ms:600"
    ticks(policy, 24, "slow")
    del os.environ["FAKE_GPU_FAULT"]
    ticks(policy, 40, "after")
print(json.dumps(out))
"""


def test_async_mode_holds_while_the_device_is_slow(gpu_release: Path) -> None:
    found = fake_gpu.run(ASYNC, [str(gpu_release)])
    assert "RUNNING" in [state for state, _ in found["states"]]
    held = {reason for state, reason in found["slow"] if state == "HOLD"}
    assert held & {"engine call takes too long", "action queue ran dry", "no valid plan"}
    assert "RUNNING" in [state for state, _ in found["after"][-20:]]


PLUGIN = f"provider/{fake_gpu.PROVIDER.files[-1].name}"


def test_what_the_driver_compiles_is_kept_where_it_was_asked_for(
    gpu_release: Path, tmp_path: Path
) -> None:
    code = """
import json, sys
from libra_edge.binding.policy import Policy
from libra_edge.errors import LibraError
try:
    with Policy(sys.argv[1], cache_dir=sys.argv[2]):
        print(json.dumps(""))
except LibraError as error:
    print(json.dumps(error.code))
"""
    cache = tmp_path / "cache"
    assert fake_gpu.run(code, [str(gpu_release), str(cache)]) == "invalid-argument"
    cache.mkdir()
    assert fake_gpu.run(code, [str(gpu_release), str(cache)]) == ""
    assert sorted(path.name[16:] for path in cache.iterdir()) == ["-planner", "-refiner"]
    assert fake_gpu.run(code, [str(gpu_release), str(cache)]) == ""


def test_two_releases_of_the_same_provider_in_one_process(
    gpu_release: Path, library: Path, tmp_path: Path
) -> None:
    other = tiny.link_release(gpu_release, tmp_path / "other")
    content = (other / PLUGIN).read_bytes() + b"\0" * 16
    tiny.replace(other / PLUGIN, content)
    tiny.seal(other, fake_gpu.manifest())
    names = [str(gpu_release), str(gpu_release), str(other), str(gpu_release)]
    answers = fake_gpu.run(OPEN, [str(library), *names])
    assert [status for status, _ in answers] == [abi.OK, abi.OK, abi.INCOMPATIBLE, abi.OK]
    assert "from other files" in answers[2][1]
