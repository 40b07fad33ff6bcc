"""ACT: the Action Chunking Transformer (Zhao et al. 2023), as LeRobot trains it."""
