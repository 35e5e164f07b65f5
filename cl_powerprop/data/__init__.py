"""A data set: where it lies, fetching and checking it, and its pictures as arrays."""
