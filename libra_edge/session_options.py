"""The configuration entries of ONNX Runtime that a target or a release may set.

None of them names a file, loads code or changes what a graph computes without being seen in its
layers; an entry that is not named here is refused wherever it is met.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

KNOWN = (
    "optimization.disable_specified_optimizers",
    "session.disable_cpu_ep_fallback",
    "session.disable_prepacking",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.qdq_matmulnbits_accuracy_level",
    "session.set_denormal_as_zero",
)
SessionOption = Annotated[str, Field(pattern=f"^({'|'.join(map(re.escape, KNOWN))})$")]
