"""The application: everything that knows Lightning's Trainer, Hydra or W&B. The library plait/ knows none of them."""
