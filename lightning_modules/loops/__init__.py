"""Loops over stages: each stage is one job, handed over by manifest."""
