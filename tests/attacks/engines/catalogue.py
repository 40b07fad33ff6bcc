"""The whole catalogue: every file of faults, read."""

from __future__ import annotations

from tests.attacks.engines import faults_claims, faults_graphs, faults_inputs, faults_operators
from tests.attacks.engines.faults import FAULTS, PLACES, Case

__all__ = [
    "FAULTS",
    "PLACES",
    "Case",
    "faults_claims",
    "faults_graphs",
    "faults_inputs",
    "faults_operators",
]
