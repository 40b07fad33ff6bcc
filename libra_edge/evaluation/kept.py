"""Results of episodes that were kept in files: whose they are, and how they are read again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from libra_edge.bundle.verify import is_release, open_release
from libra_edge.errors import IntegrityError
from libra_edge.evaluation.closed_loop import EpisodeResult
from libra_edge.paths import StrPath

_RESULT = TypeAdapter(EpisodeResult)


def policy_identity(path: StrPath) -> str:
    """Sha256 (hex) that tells the policy in a release or a checkpoint from every other one."""
    path = Path(path)
    if is_release(path):
        return open_release(path).manifest.release_id
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                total.update(
                    f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode()
                )
    return total.hexdigest()


def read_results(rows: Sequence[Mapping[str, Any]]) -> list[EpisodeResult]:
    """Results as they were kept.

    Raises:
        IntegrityError: a row is none.
    """
    try:
        return [_RESULT.validate_python(row) for row in rows]
    except ValidationError as error:
        raise IntegrityError(
            "results-invalid",
            f"A kept result is none of an episode: {error.errors()[0]['msg']}.",
            "Delete the file of results and run again.",
        ) from None
