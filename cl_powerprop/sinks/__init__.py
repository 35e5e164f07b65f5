"""The loggers, one file each: where a run's measurements go in addition to its folder."""
