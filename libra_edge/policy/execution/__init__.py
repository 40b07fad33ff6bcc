"""The parts of execution: intents, noise, limits."""
