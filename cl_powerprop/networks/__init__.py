"""Parts of networks: features with heads on top, heads and whole networks per task, norms and residual blocks."""
