"""The work of a policy in operations and bytes, and what a target takes for it at the least."""
