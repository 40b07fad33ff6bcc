"""The native runtime: `libra_edge.h`, its C++ sources, their build, and a Python harness.

Nothing here imports torch.
"""

from libra_edge.runtime.harness import Policy
from libra_edge.runtime.structs import PolicyInfo, RunOptions, StepInfo, TickInfo

__all__ = ["Policy", "PolicyInfo", "RunOptions", "StepInfo", "TickInfo"]
