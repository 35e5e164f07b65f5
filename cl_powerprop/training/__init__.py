"""Training with Avalanche: loaders that read from tensors, a fast learner, learning-rate schedules and meters."""
