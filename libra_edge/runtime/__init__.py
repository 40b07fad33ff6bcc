"""The native runtime: `libra_edge.h`, its C++ sources, and how they are built.

Nothing here imports torch.
"""
