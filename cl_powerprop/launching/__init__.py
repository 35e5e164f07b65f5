"""How the jobs of a multirun are run: each in a process of its own, and only those that are not complete yet."""
