"""Losses as named sums with counts."""
