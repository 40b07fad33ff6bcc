"""The whole catalogue: every file of faults, read."""

from __future__ import annotations

from tests.attacks.engines import (
    faults_claims,
    faults_inputs,
    faults_operators,
    faults_pictures,
    faults_refiner,
)
from tests.attacks.engines.faults import FAULTS, PLACES, Case

# Importing them fills the table.
FILES = (faults_claims, faults_inputs, faults_operators, faults_pictures, faults_refiner)
__all__ = ["FAULTS", "FILES", "PLACES", "Case"]
