"""The bench on which a model is examined: the model, the world, the judge of pictures, and how many prompts to ask.

It turns prompts into completed documents in batches, with one seed per prompt that depends on the prompt's own name and
place, so that a figure does not change when another is added. It does not know what a right answer is.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from plait.data.filling import Pictures
from plait.document import Document, ImageSpan, Span, TextSpan
from plait.errors import DocumentError, LayoutError, PlaitError, VocabularyError
from plait.evaluation.features import FeatureSpace
from plait.images import to_pictures
from plait.protocols import Judge, Policy, World


class UnaskableError(PlaitError):
    """The model cannot be asked: it does not know a word, or a prompt is longer than it reaches. The table counts such prompts.

    Args:
        num_prompts: that were to be asked in this way.
    """

    def __init__(self, message: str, num_prompts: int) -> None:
        super().__init__(message)
        self.num_prompts = num_prompts


@dataclass(frozen=True)
class Completion:
    """A prompt and what became of it; `written` are the spans after those of the prompt."""

    prompt: Document
    document: Document
    seed: int

    @property
    def written(self) -> tuple[Span, ...]:
        """What the model added after the last span of the prompt."""
        return self.document.spans[len(self.prompt.spans) :]

    @property
    def drawn(self) -> tuple[ImageSpan, ...]:
        """The pictures that the model drew, holes first."""
        holes = [index for index, span in enumerate(self.prompt.spans) if isinstance(span, ImageSpan) and span.is_hole]
        filled = [self.document.spans[index] for index in holes]
        return (*filled, *(span for span in self.written if isinstance(span, ImageSpan)))

    @property
    def text(self) -> str:
        """The text that the model wrote, pictures left out."""
        return " ".join(span.text for span in self.written if isinstance(span, TextSpan))


@dataclass(frozen=True)
class Bench:
    """A model and everything needed to examine it.

    Args:
        model: a `plait.protocols.UnifiedModel` with a `PromptTemplate` as `template` and `pictures(spans) -> images`.
        world: the data.
        judge: of pictures of the world; None where nobody knows what is right.
        pictures: those of the world.
        policies: "text" and "image", chosen on val, and "prose" for text that the model goes on writing of its own accord: the
            most likely way to go on is to go on, so a story that is never sampled never ends. Without it, "text".
        n: prompts per figure, if there are as many different ones.
        batch_size: documents per call of the model.
        seed: everything drawn follows from it.
        features: the encoder on which drawn and real pictures are compared as sets; None leaves these figures out.
    """

    model: Any
    world: World
    judge: Judge | None
    pictures: Pictures
    policies: Mapping[str, Policy]
    n: int = 300
    batch_size: int = 256
    seed: int = 0
    features: FeatureSpace | None = None

    def show(self, image_id: str) -> ImageSpan:
        """A picture of the world as a model is given it."""
        return self.pictures.fill(ImageSpan(image_id, form=self.model.template.form))

    def take(self, documents: Iterable[Document], name: Callable[[Document], Any]) -> list[Document]:
        """The first `n` documents whose names differ."""
        chosen: dict[Any, Document] = {}
        for document in documents:
            chosen.setdefault(name(document), document)
            if len(chosen) == self.n:
                break
        return list(chosen.values())

    def complete(
        self, task: str, prompts: Sequence[Document], *, max_images: int = 0, max_tokens: int = 1, is_prose: bool = False
    ) -> list[Completion]:
        """One completion per prompt.

        Args:
            task: name that the seeds are derived from.
            max_images: pictures that the model may begin of its own accord.
            max_tokens: tokens after the last span of the prompt; 1 only ends the document.
            is_prose: text is drawn with the policy "prose".

        Raises:
            DocumentError: the model changed the prompt or left a hole open.
            UnaskableError: the model does not know a word of a prompt, or a prompt is too long for it.
        """
        text = self.policies["text"]
        policies = {"text": text, "image": self.policies.get("image", text)}  # of a model that draws nothing, none is chosen
        if is_prose:
            policies["text"] = self.policies.get("prose", policies["text"])
        completions = []
        for start in range(0, len(prompts), self.batch_size):
            batch = list(prompts[start : start + self.batch_size])
            seeds = [derive_seed(self.seed, task, start + index) for index in range(len(batch))]
            try:
                documents = self.model.generate(
                    batch, policies=policies, seeds=seeds, max_images=max_images, max_tokens=max_tokens
                )
            except (LayoutError, VocabularyError) as error:
                raise UnaskableError(str(error), len(prompts)) from error
            if len(documents) != len(batch):
                raise DocumentError(f"{task}: {len(batch)} prompts gave {len(documents)} documents, expected one for each.")
            for prompt, document, seed in zip(batch, documents, seeds, strict=True):
                _check_prompt_kept(task, prompt, document)
                completions.append(Completion(prompt, document, seed))
        return completions

    def score(self, documents: Sequence[Document], *, is_plain: bool = False, batch_size: int = 64) -> list[float]:
        """Nats of what carries loss in each document (see `UnifiedModel.score`); documents of like length are scored together."""
        order = sorted(range(len(documents)), key=lambda index: (len(documents[index].images), len(documents[index].text)))
        losses = [0.0] * len(documents)
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            scores = self.model.score([documents[index] for index in members], is_plain=is_plain)
            for index, value in zip(members, scores.tolist(), strict=True):
                losses[index] = value
        return losses

    def decode(self, spans: Sequence[ImageSpan]) -> list[Image.Image]:
        """Pictures of encoded or drawn image spans."""
        pictures = []
        for start in range(0, len(spans), self.batch_size):
            pictures += to_pictures(self.model.pictures(spans[start : start + self.batch_size]))
        return pictures

    def illustrate(self, completions: Sequence[Completion]) -> list[tuple[Image.Image, ...]]:
        """Per completion one picture for every image span: drawn ones decoded, given ones as they were given."""
        drawn = [span for completion in completions for span in completion.drawn]
        decoded = dict(zip(map(id, drawn), self.decode(drawn), strict=True))
        return [
            tuple(decoded.get(id(span)) or self.world.picture(span.image_id) for span in completion.document.images)
            for completion in completions
        ]


def derive_seed(seed: int, task: str, index: int) -> int:
    """A seed of 63 bits that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}/{task}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def describe_policies(policies: Mapping[str, Policy]) -> str:
    """The policies in one line, for people."""
    return "; ".join(f"{name}: {policies[name]}" for name in sorted(policies))


def _check_prompt_kept(task: str, prompt: Document, document: Document) -> None:
    kept = document.spans[: len(prompt.spans)]
    for index, span in enumerate(prompt.spans):
        found = kept[index] if index < len(kept) else None
        if isinstance(span, ImageSpan) and span.is_hole:
            if not isinstance(found, ImageSpan) or found.codes is None:
                raise DocumentError(
                    f"{task}: span {index} of the prompt is a hole and came back as {found!r}, expected a picture."
                )
        elif found != span:
            raise DocumentError(f"{task}: span {index} of the prompt came back changed: {found!r}, expected {span!r}.")
