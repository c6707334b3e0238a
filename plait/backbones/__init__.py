"""Backbones: decoders of transformers behind one call, their packed attention, their cache and their text tokenizers."""
