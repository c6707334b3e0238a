"""Heads: how hidden states become tokens or pictures."""
