"""Independent work (episodes, pairs of target and recipe) on processes, on Ray, or in shards."""
