"""pi0 (Black et al. 2024, arXiv 2410.24164), as LeRobot trains it."""
