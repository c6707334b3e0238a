"""A release of Liquid with the published rows and ids, and a few thousand weights besides: tokenizer, config, weights in shards."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GemmaConfig, GemmaForCausalLM, PreTrainedTokenizerFast

TEXT_ROWS, NUM_CODES = 256_000, 8192
MARKERS = {"begin_image": "<boi>", "end_image": "<eoi>", "unconditional": "<unconditional>"}
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]", "<boi>", "<eoi>", "<unconditional>"]
"""ids 0 to 9 as in the released tokenizer, whose unused rows 7, 8 and 9 became markers"""
TURNS = ["<start_of_turn>", "<end_of_turn>"]


def write_tokenizer(folder: Path) -> Path:
    """A byte-level tokenizer with the special strings of the release."""
    vocabulary = {token: id for id, token in enumerate([*SPECIALS, *TURNS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in [*SPECIALS, *TURNS]])
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(str(folder))
    return folder


def tiny_gemma(**changes) -> GemmaForCausalLM:
    """Gemma with the published table and little else."""
    settings = {"vocab_size": TEXT_ROWS + NUM_CODES, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    torch.manual_seed(0)
    model = GemmaForCausalLM(GemmaConfig(**settings | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.1)
    return model


def write_release(folder: Path, shard_size: str = "10MB", **changes) -> GemmaForCausalLM:
    """Write a release; returns the model of transformers."""
    model = tiny_gemma(**changes)
    model.save_pretrained(str(folder), max_shard_size=shard_size)
    write_tokenizer(folder)
    return model
