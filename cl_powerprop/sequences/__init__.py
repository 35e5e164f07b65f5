"""The task sequences by name: which images, pixels and labels make each task. One file each."""
