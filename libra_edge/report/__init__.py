"""What a verification found, for people and machines: pages, plots, JUnit, CI pipelines."""
