"""AWQ (arXiv 2306.00978): weights that large activations meet are scaled up before rounding."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm

ALGORITHM = Algorithm(method={"method": "awq_lite", "alpha_step": 0.1})
