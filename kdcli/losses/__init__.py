"""Loss terms, one small module per family, and the weighting of teachers."""
