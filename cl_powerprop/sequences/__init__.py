"""Task sequences: which pictures, pixels and labels make each task. Plain torch, on the device."""

from cl_powerprop.sequences.base import Split, Task, TaskSequence

__all__ = ["Split", "Task", "TaskSequence"]
