"""Context banks: frozen student rollouts, their prompts, files and checks."""
