"""Teachers and students: checkpoints, heads, building, capture. The only room that knows architectures."""
