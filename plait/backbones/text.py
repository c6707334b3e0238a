"""Text tokenizers behind `plait.protocols.TextTokenizer`: one word per id, trained on the data, or a released one.

The word tokenizer is for tiny backbones on a closed vocabulary: it splits at white space and around every punctuation mark, and
a word that it never saw is an error with the nearest words, never a silent unknown token. Both know text ids only; the ids of
images and the offsets of segments belong to plait.sequence.vocabulary.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from plait.errors import CheckpointError, VocabularyError

FILE, SETTINGS = "tokenizer.json", "plait.json"
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
OPENING = "([{"
JOINING = "-'’/_"


class WordTokenizer:
    """One id per word, punctuation mark or special string; made by `train_word_level` or `load`.

    Args:
        tokenizer: a word-level tokenizer of the tokenizers library that holds <pad>, <bos> and <eos>.

    Raises:
        VocabularyError: one of the three is missing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = {token: tokenizer.token_to_id(token) for token in (PAD, BOS, EOS)}
        missing = [token for token, index in ids.items() if index is None]
        if missing:
            raise VocabularyError(f"The word tokenizer has no {', '.join(missing)}: make it with train_word_level.")
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.pad_id, self.bos_id, self.eos_id = ids[PAD], ids[BOS], ids[EOS]
        self.markers = {"pad": self.pad_id, "begin_document": self.bos_id, "end_document": self.eos_id}
        added = tokenizer.get_added_tokens_decoder()
        self._specials = {token.content for token in added.values()}
        self.special_ids = frozenset(added)
        self._words = [tokenizer.id_to_token(index) for index in range(self.size)]

    @classmethod
    def load(cls, folder: str | Path) -> "WordTokenizer":
        """Read what `save` wrote.

        Raises:
            CheckpointError: there is no tokenizer.json, or it is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise CheckpointError(f"No word tokenizer at {path}: expected the folder that WordTokenizer.save wrote.")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise CheckpointError(
                f"{path} is damaged: {error}. Expected what WordTokenizer.save wrote. Save or copy it again."
            ) from error
        return cls(tokenizer)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(Path(folder) / FILE))

    def encode(self, text: str) -> list[int]:
        """Ids without bos and eos; special strings in the text are read as such.

        Raises:
            VocabularyError: words outside the vocabulary, named with their nearest neighbours.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises a bare Exception that does not name the word
            unknown = self._unknown_words(text)
            if not unknown:
                raise
            near = {word: self._nearest(word) for word in unknown}
            hints = [
                f"{', '.join(map(repr, close))}{f' for {word!r}' if len(near) > 1 else ''}"
                for word, close in near.items()
                if close
            ]
            hint = f"the nearest are {'; '.join(hints)}" if hints else f"no word is near {'it' if len(near) == 1 else 'them'}"
            folded = self._fold(text)
            raise VocabularyError(
                f"Unknown word{'s' * (len(near) > 1)} {', '.join(map(repr, near))} in {text!r}: the vocabulary has {self.size} entries and "
                f"{hint}. Reword the text{f', for example {folded!r},' if folded else ''} or train the tokenizer on texts that contain the "
                f"word{'s' * (len(near) > 1)}."
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Words joined by single spaces, none before punctuation; encoding the result gives the same ids.

        Raises:
            VocabularyError: an id outside the vocabulary.
        """
        pieces: list[str] = []
        glues = True  # no space before the first piece
        for index in ids:
            if not 0 <= index < self.size:
                raise VocabularyError(f"Id {index} is not a text id: the word tokenizer has ids 0 to {self.size - 1}.")
            word = self._words[index]
            is_mark = word not in self._specials and _is_punctuation(word)
            if not (glues or word.isspace() or (is_mark and word not in OPENING)):
                pieces.append(" ")
            pieces.append(word)
            glues = word.isspace() or (is_mark and word in OPENING + JOINING)
        return "".join(pieces)

    def _nearest(self, word: str) -> list[str]:
        """Words like this one: those that differ in capitals alone, then those that are spelt alike, capitals or not."""
        folded: dict[str, list[str]] = {}
        for known in self._words:
            folded.setdefault(known.casefold(), []).append(known)
        close = get_close_matches(word.casefold(), folded, n=3, cutoff=0.5)
        if word.casefold() in folded:
            close = [word.casefold()]
        return [known for one in close for known in folded[one]][:3]

    def _fold(self, text: str) -> str | None:
        """The text with the capitals of the vocabulary, where that makes all of it known. It is only proposed: training saw one of the
        two spellings, and which was meant is not for a tokenizer to say."""
        for word in self._unknown_words(text):
            near = [known for known in self._nearest(word) if known.casefold() == word.casefold()]
            if len(near) != 1:
                return None
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", near[0], text)
        return text

    def _unknown_words(self, text: str) -> list[str]:
        # mask the specials, then ask the library's own splitter
        for special in sorted(self._specials, key=len, reverse=True):
            text = text.replace(special, " ")
        known = set(self._words)
        words = (word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(text))
        return list(dict.fromkeys(word for word in words if word not in known))


def train_word_level(texts: Iterable[str], specials: Sequence[str] = ()) -> WordTokenizer:
    """A word tokenizer that knows exactly the words of the texts.

    Ids: <pad>, <bos>, <eos>, the specials in the given order, then the words in alphabetical order: ids do not depend on the
    order of the texts.

    Args:
        texts: every text that will have to be written.
        specials: strings that are one id wherever they stand ("<start_of_turn>").

    Raises:
        VocabularyError: a special is empty, doubled or one of the three that are always there, or the texts hold no word.
    """
    specials = [PAD, BOS, EOS, *specials]
    if len(set(specials)) < len(specials) or not all(specials):
        raise VocabularyError(f"Specials must be different non-empty strings, none of {PAD} {BOS} {EOS}, got {specials[3:]}.")
    tokenizer = Tokenizer(models.WordLevel({}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    words: set[str] = set()
    for text in texts:
        for special in specials:
            text = text.replace(special, " ")
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    if not words - set(specials):
        raise VocabularyError("The texts hold no word to train a tokenizer on.")
    ordered = specials + sorted(words - set(specials))
    # the unknown token is named but not in the vocabulary: the library then raises instead of writing it
    tokenizer.model = models.WordLevel({word: index for index, word in enumerate(ordered)}, unk_token="<unknown>")
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in specials])
    return WordTokenizer(tokenizer)


class PretrainedTokenizer:
    """A released tokenizer of transformers.

    Args:
        name_or_folder: name on the Hub or a local folder.
        bos: token that begins a document, for tokenizers without one of their own (Qwen).
        markers: name of a further marker -> the token that the tokenizer already has for it (Liquid: {"begin_image": "<boi>", ...}).
        revision, subfolder: on the Hub.
        gguf_file: name of the file there that holds the tokenizer.
        local_files_only: asks no network.

    Raises:
        VocabularyError: there is no such tokenizer, it has no begin or end token, or `bos` or a marker is not one of its tokens.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        bos: str | None = None,
        markers: Mapping[str, str] | None = None,
        *,
        revision: str | None = None,
        subfolder: str = "",
        gguf_file: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        from transformers import AutoTokenizer

        where = {"revision": revision, "subfolder": subfolder, "local_files_only": local_files_only}
        where |= {"gguf_file": gguf_file} if gguf_file else {}
        try:
            # no code of a repository is run, and nobody is asked whether it may
            self._tokenizer = AutoTokenizer.from_pretrained(str(name_or_folder), trust_remote_code=False, **where)
        except (OSError, ValueError) as error:
            raise VocabularyError(
                f"name_or_folder={name_or_folder}: transformers reads no tokenizer there ({str(error).splitlines()[0]}). "
                "Expected a name on the Hub or a folder with tokenizer.json. Check the spelling, or download it first."
            ) from error
        self._settings = {"bos": bos, "markers": dict(markers or {})}
        self.size = len(self._tokenizer)
        self.bos_id = self._id_of("bos", bos or self._tokenizer.bos_token)
        self.eos_id = self._id_of("eos", self._tokenizer.eos_token)
        # padding is never attended to and carries no loss: any id will do
        pad = self._tokenizer.pad_token_id
        self.pad_id = self.eos_id if pad is None else pad
        self.markers = {"pad": self.pad_id, "begin_document": self.bos_id, "end_document": self.eos_id}
        self.markers |= {name: self._id_of(name, token) for name, token in self._settings["markers"].items()}
        special = {index for index, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        # what is unknown to the tokenizer is no marker
        self.special_ids = frozenset((special - {self._tokenizer.unk_token_id}) | set(self.markers.values()))

    @classmethod
    def load(cls, folder: str | Path) -> "PretrainedTokenizer":
        """Read what `save` wrote; no code of the folder is run.

        Raises:
            CheckpointError: there is no such tokenizer, or its files are damaged.
        """
        path = Path(folder) / SETTINGS
        if not path.is_file():
            raise CheckpointError(f"No saved tokenizer in {folder}: expected {SETTINGS}, which PretrainedTokenizer.save wrote.")
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            bos, markers = settings["bos"], settings["markers"]
            return cls(folder, bos, markers, local_files_only=True)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, VocabularyError) as error:
            raise CheckpointError(f"The tokenizer in {folder} cannot be read: {error!r}.") from error

    def encode(self, text: str) -> list[int]:
        """Ids without bos and eos."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special tokens written out.

        Raises:
            VocabularyError: an id outside the tokenizer, for example of an image.
        """
        outside = [index for index in ids if not 0 <= index < self.size]
        if outside:
            raise VocabularyError(f"Id {outside[0]} is not a text id: the tokenizer has ids 0 to {self.size - 1}.")
        return self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def save(self, folder: str | Path, chat_template: str | None = None) -> None:
        """Write the tokenizer's files into the folder, and what plait was told about it.

        Args:
            chat_template: a Jinja template for `apply_chat_template` of transformers, in place of the tokenizer's own.
        """
        tokenizer = self._tokenizer
        if chat_template is not None:
            tokenizer = deepcopy(tokenizer)
            tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(str(folder))
        (Path(folder) / SETTINGS).write_text(json.dumps(self._settings), encoding="utf-8")

    def _id_of(self, role: str, token: str | None) -> int:
        index = self._tokenizer.get_vocab().get(token) if token else None
        if index is None:
            found = "none" if token is None else f"{token!r}, which it does not contain"
            raise VocabularyError(
                f"The tokenizer {self._tokenizer.name_or_path!r} needs a {role} token but has {found}: "
                "name one of its tokens (bos=..., markers={...}), for Qwen bos='<|endoftext|>'."
            )
        return index


def _is_punctuation(word: str) -> bool:
    # the rule of the library's splitter: ASCII punctuation (symbols included) and the Unicode classes P
    if len(word) != 1:
        return False
    kind = unicodedata.category(word)[0]
    return kind == "P" or (kind == "S" and word.isascii())
