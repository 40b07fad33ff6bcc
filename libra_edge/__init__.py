"""Libra Edge: compile a trained Libra-VLA policy into a release that a robot can run."""

__version__ = "0.1.0"
