"""What a run is judged by: pure functions of its accuracy matrix, and its capacity."""
