"""The task sequences, one file each: which images, pixels and labels make up each task."""
