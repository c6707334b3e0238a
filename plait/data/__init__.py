"""Documents from the default world, from the Hub or from a folder, and mixtures of them."""
