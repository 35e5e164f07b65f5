"""Exporting: the network of one task as a plain, smaller network, and as a file that needs nothing of this package."""
