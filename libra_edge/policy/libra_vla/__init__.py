"""Libra-VLA in PyTorch: planner, refiner, and the layers that both are made of."""
