"""The models by name: features over which heads are put. One file each; imports torch only when one is built."""
