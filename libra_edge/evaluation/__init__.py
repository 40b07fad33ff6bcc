"""Does it do its tasks? Closed loops in a simulator, open loops on recordings, paired statistics."""
