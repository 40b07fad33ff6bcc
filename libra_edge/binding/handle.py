"""An open release: a handle of the C ABI, and what it says of itself."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from libra_edge.binding import abi, library, values
from libra_edge.binding.closing import Closing
from libra_edge.binding.values import PolicyInfo, StepInfo
from libra_edge.bundle.verify import open_release
from libra_edge.paths import StrPath
from libra_edge.policy.tokenizer import Tokenizer


class Handle(Closing):
    """What `Policy` opens and closes; its arguments are described there."""

    def __init__(
        self,
        release_dir: StrPath,
        *,
        seed: int = 0,
        threads: int = 1,
        allow_failed: bool = False,
        allow_random_weights: bool = False,
        max_observation_age_s: float | None = None,
        engines_dir: StrPath | None = None,
        cache_dir: StrPath | None = None,
    ) -> None:
        release_dir = Path(release_dir)
        if release_dir.is_file():
            release_dir = open_release(release_dir).path
        self._handle = ctypes.c_void_p()
        self._error = ctypes.create_string_buffer(abi.ERROR_SIZE)
        self._library, manifest = library.load_release_library(
            release_dir, allow_failed=allow_failed, allow_random_weights=allow_random_weights
        )
        options = values.open_options(release_dir, seed, threads)
        # A library from before these were there refuses them.
        if hasattr(self._library, "le_tokenize"):
            values.set_limits(options, allow_failed, allow_random_weights, max_observation_age_s)
        if engines_dir is not None:
            library.require_builds(self._library, release_dir)
            options.engines_dir = os.fsencode(engines_dir)
        if cache_dir is not None:
            library.require_builds(self._library, release_dir)
            options.cache_dir = os.fsencode(cache_dir)
        self._check(
            self._library.le_open(
                ctypes.byref(options), ctypes.byref(self._handle), *self._error_arguments
            )
        )
        self._instruction: str | None = None
        self.step_info: StepInfo | None = None
        try:
            self.info = self._read_info()
            self._shapes = values.shapes(manifest)
            words, length = release_dir / "tokenizer.json", self.info.instruction_length
            self._tokenizer = Tokenizer(words, length) if length else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the engines; harmless when repeated."""
        if self._handle:
            self._library.le_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def _read_info(self) -> PolicyInfo:
        raw = abi.PolicyInfo()
        self._check(self._library.le_info(self._handle, ctypes.byref(raw)))
        return values.policy_info(raw, self._library.le_version_string().decode())

    @property
    def _open_handle(self) -> ctypes.c_void_p:
        if not self._handle:
            raise ValueError("this policy is closed")
        return self._handle

    @property
    def _error_arguments(self) -> tuple[Any, int]:
        return self._error, abi.ERROR_SIZE

    @property
    def _error_text(self) -> str:
        return self._error.value.decode(errors="replace")

    def _check(self, status: int) -> None:
        if status != abi.OK:
            name = self._library.le_status_name(status).decode()
            library.raise_status(status, name, self._error_text)
