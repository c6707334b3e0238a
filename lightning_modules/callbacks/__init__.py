"""Trainer callbacks: what is watched, written down or proven while a stage trains."""
