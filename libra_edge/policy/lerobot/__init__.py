"""What policies in LeRobot's `pretrained_model` folders share: reading, normalisation, vision."""
