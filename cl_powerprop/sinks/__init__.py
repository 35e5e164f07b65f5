"""The loggers by name: where a run's measurements go beside its folder. One file each."""
