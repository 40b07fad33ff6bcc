"""Libra Edge: compile a trained Libra-VLA policy into a release that a robot can run."""

import os

from libra_edge.version import __version__

# ONNX Runtime sends telemetry unless this is set before it is imported, by whomever.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = ["__version__"]
