"""Small joints for texts: they bring WordNet, a world and a template together for a tokenizer and a mixture.

Anything that decides or computes belongs in the library.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from plait.backbones.subwords import SubwordTokenizer, train_subwords
from plait.document import Document
from plait.errors import RecipeError
from plait.protocols import World
from plait.systems.dialogues import DialogueTemplate
from plait.worlds.emoji.told import Captions, ToldDialogues
from plait.worlds.wordnet.sources import Glosses
from plait.worlds.wordnet.synsets import WordNet, iterate_texts


def train_subword_tokenizer(
    *,
    world: World,
    template: Any,
    wordnet: WordNet,
    size: int,
    specials: Sequence[str] = (),
    has_glyphs: bool = True,
    folders: Mapping[str, str | None] | None = None,
) -> SubwordTokenizer:
    """A subword tokenizer trained on the training texts of WordNet, on a world and on the wording of a system.

    Args:
        size: number of ids.
        specials: strings that are one id although no text has them yet (turns of a chat, for stages that follow).
        has_glyphs: whether the names of the real glyphs are among the texts.
        folders: as for `wiring.train_text_tokenizer`, whose place this one takes; not needed, as WordNet stays as it is.
    """
    texts = chain(iterate_texts(wordnet.select("train")), world.vocabulary_texts(glyphs=has_glyphs), template.texts())
    return train_subwords(texts, specials, size, has_leading_space=True)


def open_text_sources(
    *,
    wordnet: WordNet,
    world: World,
    split: str = "train",
    captions: Sequence[str] = ("two_objects",),
    texts: Sequence[str] = ("text",),
    dialogues: Sequence[str] = ("vqa",),
    chats: Sequence[DialogueTemplate] = (),
) -> Mapping[str, Sequence[Document]]:
    """task -> its documents of one split: the glosses of WordNet, the captions of a world without their pictures, its texts, and
    dialogues about its scenes, told instead of shown.

    Args:
        captions: tasks of the world that are pairs of caption and picture.
        texts: tasks of the world that are text.
        dialogues: tasks of the world that are a picture with questions and answers.
        chats: of the systems that start from what is trained here; dialogues take turns in their wordings.

    Raises:
        RecipeError: dialogues without a chat.
    """
    if dialogues and not chats:
        raise RecipeError(
            f"The dialogues {list(dialogues)} have no wording: expected chats. Next: name templates (conf/stage/text.yaml)."
        )
    sources: dict[str, Sequence[Document]] = {"glosses": Glosses(wordnet, split)}
    sources |= {task: Captions(world.source(task, split)) for task in captions}
    sources |= {task: ToldDialogues(world.source(task, split), [chat.wording for chat in chats]) for task in dialogues}
    return sources | {task: world.source(task, split) for task in texts}
