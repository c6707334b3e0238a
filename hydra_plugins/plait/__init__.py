"""What plait adds to Hydra, which takes launchers from the namespace `hydra_plugins` only."""
