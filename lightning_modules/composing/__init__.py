"""A config and what becomes of it: what it may say, what of it may run, and the objects that it names."""
