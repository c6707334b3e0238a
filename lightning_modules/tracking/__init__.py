"""The record of a run while it is made, and its mirror in W&B."""
