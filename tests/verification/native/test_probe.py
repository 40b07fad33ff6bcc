"""The probe engines in NumPy and in ONNX Runtime: the same bits, for every code."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from libra_edge.verification.native import probe
from libra_edge.verification.native.graphs import planner_graph, refiner_graph
from libra_edge.verification.native.probe import Contract, EngineFailure, Probe
from libra_edge.verification.native.releases import narrow_robot, wide_robot

CONTRACTS = [Contract(wide_robot(), 7, 4, 3, 5), Contract(narrow_robot(), 2, 1, 1, 1)]


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("contract", CONTRACTS, ids=["wide", "narrow"])
def test_numpy_and_onnxruntime_give_the_same_bits(contract: Contract) -> None:
    engines, rng = Probe(contract), np.random.default_rng(1)
    planner, refiner = session(planner_graph(contract)), session(refiner_graph(contract))
    chunk, failures = (contract.chunk, contract.dims), 0
    for i in range(300):
        images = rng.integers(0, 256, contract.image_shape, dtype=np.uint8)
        images.reshape(-1)[0] = i % probe.CODES if i % 3 == 0 else probe.FINE
        state = rng.standard_normal(len(contract.embodiment.state)) * 10.0 ** rng.uniform(-3, 8)
        words = rng.integers(0, 9, contract.instruction_length)
        intent = rng.integers(0, contract.bins, chunk).astype(np.int32)
        noise = rng.standard_normal(chunk).astype(np.float32)
        seen = {"images": images, "state": state.astype(np.float32)}
        try:
            planned = engines.plan(images, words, seen["state"])
        except EngineFailure:
            failures += 1
            with pytest.raises(Exception, match="out of data bounds"):
                planner.run(None, {**seen, "instruction": words})
        else:
            for ours, theirs in zip(
                planned, planner.run(["intent", "margin"], {**seen, "instruction": words}),
                strict=True,
            ):  # fmt: skip
                np.testing.assert_array_equal(ours, theirs)
        try:
            actions = engines.refine(images, seen["state"], intent, noise)
        except EngineFailure:
            failures += 1
            with pytest.raises(Exception, match="out of data bounds"):
                refiner.run(None, {**seen, "intent": intent, "noise": noise})
        else:
            (theirs,) = refiner.run(None, {**seen, "intent": intent, "noise": noise})
            np.testing.assert_array_equal(actions, theirs)
    assert failures > 5
