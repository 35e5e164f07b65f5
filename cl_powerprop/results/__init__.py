"""What a run finds out: typed, and as the files of its run folder."""
