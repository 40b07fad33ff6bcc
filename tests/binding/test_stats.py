"""Statistics as Prometheus text."""

from __future__ import annotations

import re

import numpy as np

from libra_edge.binding.policy import Policy
from libra_edge.binding.stats import COUNTERS, HISTOGRAMS, to_prometheus
from libra_edge.binding.values import RunOptions
from tests.runtime import tiny_release as tiny


def test_prometheus_text(policy: Policy) -> None:
    policy.start(RunOptions(manual=True))
    policy.observe(*tiny.observation(np.random.default_rng(0)), 1)
    for step in range(10):
        policy.tick(step)
    stats = policy.stats()
    text = to_prometheus(stats, 'a "quoted" \\ name')
    line = re.compile(
        r'^(# (HELP|TYPE) .+|libra_edge_\w+\{policy="a \\"quoted\\" \\\\ name"[^}]*\} [0-9.e+-]+)$'
    )
    for row in text.splitlines():
        assert line.match(row), row
    for name in COUNTERS:
        assert f"libra_edge_{name}_total{{" in text
    for name, (metric, _, _) in HISTOGRAMS.items():
        values = re.findall(rf"libra_edge_{metric}_bucket\{{.*\}} (\d+)", text)
        counts = [int(value) for value in values]
        assert counts == sorted(counts)
        assert counts[-1] == stats[name]["count"]
    assert 'reason="no instruction yet"}} 10'.replace("}}", "}") in text
