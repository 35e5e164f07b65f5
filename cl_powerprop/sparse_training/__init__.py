"""The choices of sparse training, as `sparsity=NAME`; torch is imported only when a controller is made."""
