"""Libra-VLA: configuration, action space, planner, refiner, schedules, checkpoints, executor.

Import the modules by name: `config`, `actions`, `schedule`, `noise`, `tokenizer` and `executor`
need only NumPy and pydantic; the others need PyTorch.
"""
