"""Libra Edge: compile a trained Libra-VLA policy into a release that a robot can run."""

from libra_edge.version import __version__

__all__ = ["__version__"]
