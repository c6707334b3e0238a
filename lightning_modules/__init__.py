"""The application: everything that knows Lightning's Trainer, Hydra or W&B. The library plait/ knows none of them."""

import warnings

# in a notebook tqdm says that it has no widgets and writes text: that is how progress is shown here
warnings.filterwarnings("ignore", message="IProgress not found")
