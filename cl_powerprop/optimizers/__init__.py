"""The optimizers, one file each. torch is imported only when one is made."""
