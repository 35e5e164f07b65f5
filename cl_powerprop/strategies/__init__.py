"""The continual-learning strategies by name, one file each: what the loop asks of a method."""
