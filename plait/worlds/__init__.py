"""Worlds: data that is made, with its pictures, texts and truth; each is a folder of its own and knows no model."""
