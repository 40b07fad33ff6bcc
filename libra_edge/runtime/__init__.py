"""The native runtime: `libra_edge.h`, its C++ sources, their build, and a Python harness.

Nothing here imports torch.
"""

from libra_edge.runtime.harness import Policy, PolicyInfo, StepInfo

__all__ = ["Policy", "PolicyInfo", "StepInfo"]
