"""What EmojiWorld asks a model: one file per skill, what judges and what answers blindly (`plan.py` lists them)."""
