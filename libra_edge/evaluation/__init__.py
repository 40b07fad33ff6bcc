"""Closed loops in a simulator, open loops on recordings, statistics of paired episodes."""
