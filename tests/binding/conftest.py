"""The native library, and releases around it, as tests/runtime has them."""

from tests.runtime.conftest import copy, library, policy, release

__all__ = ["copy", "library", "policy", "release"]
