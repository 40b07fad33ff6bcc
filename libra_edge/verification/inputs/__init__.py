"""Inputs that no dataset holds: every word, and what broken sensors send."""
