"""Vision tokenizers: pictures to code grids and back, and the offline cache of codes."""
