"""SmolVLA (Shukor et al. 2025, arXiv 2506.01844), as LeRobot trains it."""
