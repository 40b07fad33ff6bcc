"""What lies behind a verdict: errors by place, by step and over time; plain numbers."""
