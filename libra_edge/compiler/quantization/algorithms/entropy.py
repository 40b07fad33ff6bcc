"""The range whose rounded histogram tells most of the one that was seen."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm

ALGORITHM = Algorithm(collected=lambda recipe: {})
