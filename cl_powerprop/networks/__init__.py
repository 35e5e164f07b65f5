"""What networks are made of: features, heads and biases that a task can call its own, and norms."""
