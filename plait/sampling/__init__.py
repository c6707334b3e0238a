"""Sampling: policies, the grammar of legal ids, and the batched state machine that writes interleaved documents."""
