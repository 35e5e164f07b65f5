"""Runs that are stopped, starved and damaged on purpose: the parts of `scripts/chaos.py`."""
