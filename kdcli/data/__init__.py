"""Texts and labels: tasks, readers, the starter task, batches, and the alignment of two tokenizers."""
