from tests.runtime.conftest import library, release

__all__ = ["library", "release"]
