"""SmoothQuant (arXiv 2211.10438): spread moves from activations into weights, half of it."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm

ALGORITHM = Algorithm(method={"method": "smoothquant", "alpha": 0.5})
