"""Anti-rollback: the highest security epoch accepted of each key; lower ones are refused.

Kept per key, so that a key that leaked and signed an epoch far ahead shuts out nobody but itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from libra_edge.errors import UntrustedError

UNSIGNED = "unsigned"


def accept_epoch(epochs: Mapping[str, int], key_id: str, epoch: int) -> dict[str, int]:
    """The epochs once a release is accepted.

    Args:
        epochs: the highest accepted of each key, by its id.
        key_id: of the release's key; `UNSIGNED` where nobody signed it.
        epoch: the release's.

    Raises:
        UntrustedError: the key has signed a higher one that was accepted.
    """
    highest = epochs.get(key_id, 0)
    if epoch < highest:
        raise UntrustedError(
            "epoch-too-low",
            f"The release has security epoch {epoch}; of its key {highest} was accepted before.",
            "Install a newer release; going back to the other slot is `rollback`.",
        )
    return {**epochs, key_id: epoch}
