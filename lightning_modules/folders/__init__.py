"""The folder of a run: who owns it, what it records about itself, and what may go on in it."""
