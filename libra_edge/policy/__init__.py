"""What policies share: configuration, actions, schedules, checkpoints, the reference executor.

Import the modules by name: `config`, `actions`, `schedule`, `noise`, `tokenizer` and `executor`
need only NumPy and pydantic; `checkpoint` and the family's own folder need PyTorch.
"""
