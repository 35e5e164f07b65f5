"""The only place that knows Avalanche's templates: tensor-fed loaders, the fast strategy, schedules and meters."""
