"""Names that a W&B run and a run folder have in common."""

RUN_FILES = "run_folder"  # where among a W&B run's files copies of the run's own are
TABLES = ("accuracy_matrix", "capacity", "reuse", "mask_overlap")
UPLOADED = ".synced"  # what W&B's own sync adds to the name of a file that has been uploaded
