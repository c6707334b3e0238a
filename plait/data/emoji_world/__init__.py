"""EmojiWorld, the default data: a small world whose truth is known exactly."""
