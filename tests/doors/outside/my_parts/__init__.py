"""Parts that somebody adds to cl-powerprop, one file each."""

from . import dataset, metric, model, optimizer, sequence, sink, sparsity, strategy

__all__ = ["dataset", "metric", "model", "optimizer", "sequence", "sink", "sparsity", "strategy"]
