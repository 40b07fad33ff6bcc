"""Shared by all tests; keep it small: what only some tests need stands beside them."""

from __future__ import annotations

import os

# Before NumPy, PyTorch or ONNX Runtime start their threads: two of them fight over a shared core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
