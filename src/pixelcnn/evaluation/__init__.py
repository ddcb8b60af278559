"""NLL of a split, paired comparisons and the baselines that need no network."""
