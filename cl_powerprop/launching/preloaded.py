"""What the server imports from which the processes of jobs are forked."""

import gc

import cl_powerprop.experiment
import cl_powerprop.hydra_run  # noqa: F401

gc.collect()
gc.freeze()  # or each process copies all of it as soon as it looks for garbage
