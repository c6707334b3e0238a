"""Evaluation: what a picture, caption, answer or story shows, and how often it is right."""
