"""The Hydra configs: one folder a group, shipped inside the package."""
