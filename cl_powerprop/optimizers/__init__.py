"""The optimizers by name. One file each; imports torch only when one is made."""
