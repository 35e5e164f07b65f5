"""The models, one file each: a model computes features, on which heads are put. torch is imported only when needed."""
