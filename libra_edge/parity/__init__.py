"""Is the compiled policy still the same policy? Metrics, gates, closed loops, reports."""
