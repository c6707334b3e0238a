"""Documents of the world without their pictures, for models that learn words before they see."""

from collections.abc import Sequence

from plait.document import Document, TextSpan
from plait.sequence.chat import ChatWording
from plait.worlds.emoji.captions import describe
from plait.worlds.emoji.scenes import Scene


class Captions(Sequence[Document]):
    """The texts of pairs, to be learned as text.

    Args:
        pairs: documents of a caption and a picture.
    """

    def __init__(self, pairs: Sequence[Document]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Document:
        pair = self.pairs[index]
        return Document((TextSpan(pair.text, loss=True),), id=f"{pair.id}/caption", kind="text", meta=pair.meta)


class ToldDialogues(Sequence[Document]):
    """Questions and answers about scenes that are told in words, in the wording of a chat: a language model that systems start from
    has seen turns before it sees pictures, as released chat models have.

    Args:
        dialogues: documents of a picture, then questions and answers in turn; `meta` holds the scene.
        wordings: of chats; documents take them in turn.
        most: questions per document.
    """

    def __init__(self, dialogues: Sequence[Document], wordings: Sequence[ChatWording], most: int = 3) -> None:
        self.dialogues, self.wordings, self.most = dialogues, tuple(wordings), most

    def __len__(self) -> int:
        return len(self.dialogues)

    def __getitem__(self, index: int) -> Document:
        dialogue, wording = self.dialogues[index], self.wordings[index % len(self.wordings)]
        told, texts = describe(Scene.from_json(dialogue.meta["scene"]), index), [span.text for span in dialogue.spans[1:]]
        opening = f"{told}\n"
        turns = [
            f"{wording.user}{'' if place else opening}{texts[place]}{wording.end}{wording.assistant}{texts[place + 1]}{wording.end}"
            for place in range(0, min(len(texts), 2 * self.most), 2)
        ]
        return Document((TextSpan("".join(turns), loss=True),), id=f"{dialogue.id}/told", is_worded=True, meta=dialogue.meta)
