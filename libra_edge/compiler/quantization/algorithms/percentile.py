"""A recipe's percentile of absolute activations."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm

ALGORITHM = Algorithm(collected=lambda recipe: {"percentile": recipe.percentile})
