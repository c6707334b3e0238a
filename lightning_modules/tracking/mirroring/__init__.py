"""The mirror of a run in W&B, in a process of its own that reads the record of the run and cannot hurt it."""
