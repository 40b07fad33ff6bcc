"""All that was seen: the least and the largest value, each end apart."""

from libra_edge.compiler.quantization.algorithms.base import Algorithm
from libra_edge.compiler.quantization.ranges import whole_inputs

ALGORITHM = Algorithm(inputs=whole_inputs)
