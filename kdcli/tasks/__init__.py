"""The kinds of task, one file each: everything that differs between them and nothing else."""
