"""What parent and child say to each other: JSON and plain arrays, nothing that runs when read.

The child runs a stranger's code, so nothing it sends is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MOST_BYTES = 1 << 30
_DTYPES = ("uint8", "int32", "int64", "float32", "float64")


class Nonsense(ValueError):
    """A message that is none."""


def pack(head: Mapping[str, Any], arrays: Sequence[Array] = ()) -> bytes:
    """One message: the head's length in four bytes, the head, the arrays' bytes."""
    described = [[array.dtype.name, list(array.shape)] for array in arrays]
    text = json.dumps({"head": head, "arrays": described}).encode()
    pieces = [np.ascontiguousarray(array).tobytes() for array in arrays]
    return b"".join([len(text).to_bytes(4, "little"), text, *pieces])


def unpack(message: bytes) -> tuple[dict[str, Any], list[Array]]:
    """The head and the arrays of a message; the arrays cannot be written to.

    Raises:
        Nonsense: it is not what `pack` makes.
    """
    try:
        end = 4 + int.from_bytes(message[:4], "little")
        body = json.loads(message[4:end])
        arrays = []
        for name, shape in body["arrays"]:
            if name not in _DTYPES:
                raise Nonsense(f"an array of {name!r}")
            dtype, count = np.dtype(name), prod(shape)
            flat = np.frombuffer(message, dtype, count, end) if count else np.empty(0, dtype)
            arrays.append(flat.reshape(shape))
            end += flat.nbytes
        head = body["head"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Nonsense(str(error)) from None
    if end != len(message) or not isinstance(head, dict):
        raise Nonsense("a message of another length")
    return head, arrays
