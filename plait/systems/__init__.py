"""Unified systems: one builder function each, assembled from parts."""
