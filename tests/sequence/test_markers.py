"""What somebody types is text or is refused: no prompt, question, message or row makes a marker, whatever the text tokenizer."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plait.backbones.subwords import train_subwords
from plait.backbones.text import PretrainedTokenizer, train_word_level
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, MarkerError, PlaitError
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import code_frame
from plait.sequence.layout import DocumentLayout
from plait.sequence.vocabulary import Vocabulary
from plait.systems.language_model import PlainTemplate
from plait.systems.liquid import LiquidTemplate
from plait.systems.synergen_vl import SynergenTemplate

IMAGE = ImageSpan("i", form="codes", codes=(np.zeros((2, 2), dtype=np.int64),))
TEMPLATES = {"liquid": LiquidTemplate(caption_dropout=0.0), "synergen_vl": SynergenTemplate(caption_dropout=0.0)}
ASKED = {
    "draw": lambda template, text: template.draw_prompt(text),
    "question": lambda template, text: template.question_prompt(IMAGE, text),
    "edit": lambda template, text: template.edit_prompt(IMAGE, text),
    "story": lambda template, text: template.story_prompt([TextSpan(text), IMAGE]),
    "chat": lambda template, text: template.chat([{"role": "user", "content": text}]),
    "pair": lambda template, text: template.wrap(Document((TextSpan(text), IMAGE), kind="pair"), 0),
    "row": lambda template, text: template.wrap(
        Document((IMAGE, TextSpan(text), TextSpan(text, loss=True)), kind="dialogue"), 0
    ),
    "story row": lambda template, text: template.wrap(
        Document((TextSpan(text, loss=True), replace(IMAGE, loss=True)), kind="document"), 0
    ),
}
TYPED = ("<boi>", "<eoi>", "<eos>", "<unconditional>", "<pad>", "<bos>", "<start_of_turn>", "<|im_start|>", "<|endoftext|>")
TEXTS = [text for template in TEMPLATES.values() for text in template.texts()]
WORDS = [*TEXTS, "a red car what does it mean < > | pad bos boi eoi eos start of turn im endoftext unconditional"]


def word_level(tmp_path):
    return train_word_level(WORDS, sorted({mark for template in TEMPLATES.values() for mark in template.marks}))


def subwords(tmp_path):
    return train_subwords(WORDS, sorted({mark for template in TEMPLATES.values() for mark in template.marks}), 400)


def released(tmp_path):
    """A byte-level tokenizer of the Hub with special tokens and with added ones that are none."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<|endoftext|>")
    marks = sorted({mark for template in TEMPLATES.values() for mark in template.marks})
    fast.add_special_tokens({"additional_special_tokens": [*marks, "<|tool|>"]})
    fast.add_tokens([AddedToken("<h1>", special=False)])
    fast.save_pretrained(str(tmp_path / "fast"))
    return PretrainedTokenizer(tmp_path / "fast")


def builder_of(tokenizer, template) -> SequenceBuilder:
    vocabulary = Vocabulary(tokenizer.size, (12,), tokenizer.markers)
    return SequenceBuilder(
        DocumentLayout(vocabulary, tokenizer, [code_frame(vocabulary.code_segments, ((2, 2),))], template.marks)
    )


@pytest.mark.parametrize("make", [word_level, subwords, released])
@pytest.mark.parametrize("system", TEMPLATES)
def test_nothing_that_is_typed_acts_as_a_marker(make, system, tmp_path) -> None:
    """Every way to ask, every marker: refused by name, or the very ids of a text, with as many special ids as without it."""
    template, tokenizer = TEMPLATES[system], make(tmp_path)
    builder = builder_of(tokenizer, template)
    special = tokenizer.special_ids | set(builder.vocabulary.specials.values())
    for typed in (*TYPED, "</s>", "<|tool|>", "<h1>"):
        for ask in ASKED.values():
            expected = [index for index in builder.encode(ask(template, "a red car")).ids.tolist() if index in special]
            try:
                ids = builder.encode(ask(template, f"a {typed} car")).ids.tolist()
            except PlaitError:
                continue
            assert [index for index in ids if index in special] == expected, f"{typed} acted as a marker"


@pytest.mark.parametrize("system", TEMPLATES)
def test_markers_of_the_wording_are_refused_before_they_are_worded(system) -> None:
    template = TEMPLATES[system]
    for typed in (*template.marks, "<boi>", "<eos>", "<unconditional>"):
        for ask in ASKED.values():
            with pytest.raises(MarkerError, match="which only the wording"):
                ask(template, f"a {typed} car")


def test_special_tokens_of_a_released_tokenizer_are_refused_and_added_words_are_text(tmp_path) -> None:
    tokenizer, template = released(tmp_path), TEMPLATES["liquid"]
    builder = builder_of(tokenizer, template)
    for typed in ("</s>", "<s>", "<|tool|>"):
        for ask in ASKED.values():
            with pytest.raises(DocumentError, match=f"holds {typed!r}.*marker of the text tokenizer".replace("|", r"\|")):
                builder.encode(ask(template, f"a {typed} car"))
    builder.encode(template.draw_prompt("a <h1> car"))
    (read,) = builder.read(builder.build([template.draw_prompt("a <h1> car")]))
    assert "<h1>" in read.text


def test_a_dialogue_is_worded_once() -> None:
    template = TEMPLATES["liquid"]
    dialogue = template.chat([{"role": "user", "content": "a red car"}, {"role": "assistant", "content": "yes"}])
    assert template.wrap(dialogue, 3) == dialogue


def test_a_language_model_reads_dialogues_that_come_worded_and_refuses_typed_turns(tmp_path) -> None:
    marks = tuple(mark for template in TEMPLATES.values() for mark in template.marks)
    template, tokenizer = PlainTemplate(marks), subwords(tmp_path)
    builder = builder_of(tokenizer, template)
    turn = "<start_of_turn>user\na red car<end_of_turn>\n"
    told = Document((TextSpan(turn, loss=True),), is_worded=True)
    ids = builder.encode(template.wrap(told, 0)).ids.tolist()
    assert [
        index for index in ids if index in tokenizer.special_ids - {tokenizer.bos_id, tokenizer.eos_id}
    ] == tokenizer.encode("<start_of_turn><end_of_turn>")
    with pytest.raises(MarkerError, match="'<start_of_turn>', which only the wording"):
        template.wrap(Document((TextSpan(turn, loss=True),), kind="text"), 0)
