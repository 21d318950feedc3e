"""The one training loop, its stages, objectives, events and checkpoints."""
