"""Figures with baselines and intervals, on every split."""
