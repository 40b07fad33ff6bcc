"""Of several ranges of a layer's input the one that leaves the least error in its output."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm
from libra_edge.compiler.quantization.ranges import search_inputs

ALGORITHM = Algorithm(inputs=search_inputs)
