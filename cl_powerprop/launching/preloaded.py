"""What the server imports, and does once, from which the processes of jobs are forked."""

import gc

import cl_powerprop.experiment
import cl_powerprop.hydra_run
import cl_powerprop.tracking.job_folders  # noqa: F401
from cl_powerprop.composition import compose

compose()  # finds all parts, and lets the parser of overrides fill its tables
gc.collect()
gc.freeze()  # or each process copies all of it as soon as it looks for garbage
