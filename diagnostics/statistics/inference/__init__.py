"""Numbers from sums per prompt: estimators, the bootstrap, cluster-robust errors."""
