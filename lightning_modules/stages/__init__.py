"""Training stages: each states what is special about it, nothing else."""
