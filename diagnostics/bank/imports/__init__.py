"""Banks from the rollouts that a trainer wrote: formats, token ids from text, the import."""
