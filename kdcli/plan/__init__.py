"""The recipe held against the real checkpoints and the task: every check and every resolved number before training."""
