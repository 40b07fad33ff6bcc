"""Diffusion Policy (Chi et al. 2023) with a convolutional UNet, as LeRobot trains it."""
