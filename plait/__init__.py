"""plait: parts and systems of unified multimodal language models (torch level; knows no trainer, no config system, no tracker)."""
