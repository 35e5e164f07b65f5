"""Networks as plain torch modules, with heads and biases a task can call its own."""
