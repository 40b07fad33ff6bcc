"""Shared by all tests; keep it small: what only some tests need stands beside them."""

from __future__ import annotations

import os
from ctypes.util import find_library

# Model Optimizer imports it late, and it must come before anything that reads distutils.
import setuptools  # noqa: F401

# Before NumPy, PyTorch or ONNX Runtime start their threads: two of them fight over a shared core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before any test imports MuJoCo, which picks its renderer when it is imported.
os.environ.setdefault("MUJOCO_GL", "osmesa" if find_library("OSMesa") else "egl")
