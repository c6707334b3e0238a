"""Image decoders: codes or conditions to pixels."""
