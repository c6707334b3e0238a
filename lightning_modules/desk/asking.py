"""One road to ask a model something: each kind of request in the wording that it was trained on, with one's own pictures or those of the
run's world. `plait-generate` and the desk of a notebook are two doors to it.

It knows the kinds by the template of the system and neither how a request was written down nor where an answer is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.composing.arguments import check_count, checked_by
from lightning_modules.desk.answers import Answer, Answers
from lightning_modules.desk.requests import Request, check_texts, refuse_hole
from lightning_modules.desk.shelf import Shelf, Source
from lightning_modules.jobs.gallery import complete, cut_prompt
from plait.data.filling import Pictures, fill_images
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import DocumentError, RecipeError
from plait.images import check_fit
from plait.protocols import Policy, World
from plait.samples import Sample
from plait.tiling import Tiling

MOST_SEED = 2**63 - 1


@checked_by(lambda fit="crop": check_fit(fit))
class Asker:
    """A model, ready to be asked.

    Every verb takes `seed` (of the first sample of each request; sample i has seed + i), `num_samples` of each request, and settings of
    the sampling policy by name: guidance, temperature, top_k, top_p, repetition_penalty. They are those of the pictures; of `ask` and
    `caption`, where nothing is drawn, those of the words. In `tell` and `chat` the words have theirs as text_temperature, text_top_p and
    so on. What is not set is as the run has it.

    Args:
        model: of a system (`plait.systems`).
        text_policy: writes answers.
        prose_policy: writes stories.
        image_policy: draws.
        fit, tiling, world: see `lightning_modules.desk.shelf.Shelf`.

    Raises:
        RecipeError: it is no model that reads and writes documents with pictures.
    """

    def __init__(
        self,
        *,
        model: Any,
        text_policy: Policy,
        prose_policy: Policy,
        image_policy: Policy,
        fit: str = "crop",
        tiling: Tiling | None = None,
        world: Callable[[], World] | None = None,
    ) -> None:
        check_fit(fit)
        if not hasattr(model, "template") or model.image_size is None:
            raise RecipeError(
                f"A {type(model).__name__} that reads and writes {'text alone' if hasattr(model, 'template') else 'no documents'} "
                "cannot be asked, expected a system of text and pictures. Next: name the run of such a stage, as outputs/demo/instruction."
            )
        self.model = model.eval()
        self.policies = {"text": text_policy, "prose": prose_policy, "image": image_policy}
        self.shelf = Shelf(model, fit, tiling, world)

    def draw(self, prompts: str | Sequence[str], *, seed: int = 0, num_samples: int = 1, **settings: Any) -> Answers:
        """Draw descriptions."""
        texts = self._texts(prompts, "prompt")
        documents = [replace(self.model.template.draw_prompt(text), id=text) for text in texts]
        return self._complete(documents, self._image(settings), seed, num_samples, max_tokens=1)

    def caption(self, image: Source, *, seed: int = 0, num_samples: int = 1, max_tokens: int = 64, **settings: Any) -> Answers:
        """Ask for the caption of a picture."""
        prompt = self.model.template.caption_prompt(self.shelf.take(image))
        return self._complete([prompt], self._text(settings), seed, num_samples, max_tokens=max_tokens)

    def ask(
        self,
        image: Source,
        question: str | Sequence[str],
        *,
        seed: int = 0,
        num_samples: int = 1,
        max_tokens: int = 64,
        **settings: Any,
    ) -> Answers:
        """Ask a question about a picture, or several, each by itself."""
        texts, span = self._texts(question, "question"), self.shelf.take(image)
        documents = [replace(self.model.template.question_prompt(span, text), id=text) for text in texts]
        return self._complete(documents, self._text(settings), seed, num_samples, max_tokens=max_tokens)

    def edit(
        self, image: Source, instruction: str | Sequence[str], *, seed: int = 0, num_samples: int = 1, **settings: Any
    ) -> Answers:
        """Have a picture changed, as one instruction or each of several says."""
        texts, span = self._texts(instruction, "edit"), self.shelf.take(image)
        documents = [replace(self.model.template.edit_prompt(span, text), id=text) for text in texts]
        return self._complete(documents, self._image(settings), seed, num_samples, max_tokens=1)

    def tell(
        self,
        beginning: str | Document | Sequence[Source],
        *,
        max_images: int = 2,
        max_tokens: int = 120,
        seed: int = 0,
        num_samples: int = 1,
        folder: Path | None = None,
        **settings: Any,
    ) -> Answers:
        """Go on with a story.

        Args:
            beginning: a sentence; or sentences and pictures in their order, where a text that names a file or an id of the world is a
                picture; or a document with holes where pictures are to be drawn.
            max_images, max_tokens: that the story may go on with, pictures included.
            folder: where pictures of a document are, besides here.
        """
        if isinstance(beginning, Document):
            for span in beginning.images:
                if span.is_hole and self.shelf.has(span.image_id):
                    raise DocumentError(refuse_hole(span.image_id))
            spans = [
                self.shelf.take(span.image_id, span.image_id, folder)
                if isinstance(span, ImageSpan) and _is_named(span)
                else span
                for span in beginning.spans
            ]
        else:
            listed = beginning if isinstance(beginning, list | tuple) else [beginning]
            spans = [self._read_piece(piece) for piece in listed]
        if not spans:
            raise DocumentError("The story has no beginning, expected a sentence or a picture. Next: give one.")
        prompt = self.model.template.story_prompt(spans)
        prompt = replace(prompt, id=beginning.id if isinstance(beginning, Document) else "")
        budget = {"max_images": max_images, "max_tokens": max_tokens}
        return self._complete([prompt], self._both(settings, "prose"), seed, num_samples, **budget)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_images: int = 2,
        max_tokens: int = 120,
        seed: int = 0,
        num_samples: int = 1,
        folder: Path | None = None,
        **settings: Any,
    ) -> Answers:
        """Answer the last message of a dialogue (`plait.sequence.chat`); its pictures are files or ids of the world."""
        if not isinstance(messages, list | tuple) or not messages or not all(isinstance(one, Mapping) for one in messages):
            raise DocumentError(
                f"The dialogue is {messages!r}, expected a list of messages. Next: [{{'role': 'user', 'content': 'a red car'}}]."
            )
        worded = [{**message, "content": self._read_content(message, folder)} for message in messages]
        prompt = self.model.template.chat(worded)
        budget = {"max_images": max_images, "max_tokens": max_tokens}
        return self._complete([prompt], self._both(settings, "text"), seed, num_samples, **budget)

    def go_on(
        self,
        documents: Sequence[Document],
        *,
        max_images: int = 2,
        max_tokens: int = 64,
        seed: int = 0,
        num_samples: int = 1,
        **settings: Any,
    ) -> Answers:
        """Complete documents of the run's data, each given up to what is to be learned from it."""
        if not isinstance(documents, list | tuple) or not documents or not all(isinstance(one, Document) for one in documents):
            raise DocumentError(
                f"{str(documents)[:100]!r} are no documents to go on with, expected a list of them. "
                "Next: [desk.world.source('edits', 'val')[0]]."
            )
        worded = [self.model.template.wrap(document, number) for number, document in enumerate(documents)]
        shelf = Pictures(lambda name: self.shelf.take(name).codes, lambda name: self.shelf.take(name).pixels)
        prompts = [cut_prompt(fill_images(document, shelf)) for document in worded]
        budget = {"max_images": max_images, "max_tokens": max_tokens}
        return self._complete(prompts, self._both(settings, "prose"), seed, num_samples, **budget)

    def answer(self, request: Request, *, max_images: int = 4, max_tokens: int = 120, **how: Any) -> Answers:
        """Do what is asked for (`lightning_modules.desk.requests`).

        Args:
            max_images, max_tokens: of what goes on by itself.
            how: seed, num_samples and settings.
        """
        image = request.image
        if image is not None and not Path(image).expanduser().is_file():
            image = str(request.folder / image)
        budget = {"max_images": max_images, "max_tokens": max_tokens, "folder": request.folder}
        match request.kind:
            case "draw":
                return self.draw(request.texts, **how)
            case "caption":
                return self.caption(image, max_tokens=max_tokens, **how)
            case "question":
                return self.ask(image, request.texts, max_tokens=max_tokens, **how)
            case "edit":
                return self.edit(image, request.texts, **how)
            case "chat":
                return self.chat(request.messages, **budget, **how)
        return self.tell(request.document, **budget, **how)

    def _complete(
        self, prompts: Sequence[Document], policies: Mapping[str, Policy], seed: int, num_samples: int, **budget: int
    ) -> Answers:
        check_numbers(seed=seed, num_samples=num_samples, **budget)
        seed, num_samples = int(seed), int(num_samples)
        repeated = [prompt for prompt in prompts for _ in range(num_samples)]
        seeds = [seed + number for _ in prompts for number in range(num_samples)]
        budget = {"max_images": 0} | {name: int(number) for name, number in budget.items()}
        samples = complete(self.model, self.shelf, repeated, policies, seeds, **budget)
        return Answers([self._read_answer(sample) for sample in samples])

    def _read_answer(self, sample: Sample) -> Answer:
        made = [span for span, is_made in zip(sample.document.spans, sample.made, strict=True) if is_made]
        text = " ".join(span.text for span in made if isinstance(span, TextSpan))
        drawn = tuple(sample.pictures(span) for span in made if isinstance(span, ImageSpan) and span.codes is not None)
        return Answer(sample, self.model.template.answer(text), drawn)

    def _texts(self, texts: str | Sequence[str], name: str) -> tuple[str, ...]:
        """Texts as they were typed, each of which the model can read: refused here, they are named without the wording around them."""
        checked = check_texts(texts, name)
        for text in checked:
            self.model.builder.layout.encode_text(text)
        return checked

    def _image(self, settings: Mapping[str, Any]) -> dict[str, Policy]:
        return {"text": self.policies["text"], "image": _change(self.policies["image"], settings)}

    def _text(self, settings: Mapping[str, Any]) -> dict[str, Policy]:
        return {"text": _change(self.policies["text"], settings), "image": self.policies["image"]}

    def _both(self, settings: Mapping[str, Any], writes: str) -> dict[str, Policy]:
        words = {name.removeprefix("text_"): value for name, value in settings.items() if name.startswith("text_")}
        rest = {name: value for name, value in settings.items() if not name.startswith("text_")}
        return {"text": _change(self.policies[writes], words), "image": _change(self.policies["image"], rest)}

    def _read_piece(self, piece: Any) -> TextSpan | ImageSpan:
        if isinstance(piece, TextSpan | ImageSpan):
            return piece
        # what ends as pictures do is meant as one, and missed where it is not there
        is_file = isinstance(piece, str) and Path(piece).suffix.lower() in Image.registered_extensions()
        if isinstance(piece, str) and not is_file and not self.shelf.has(piece):
            return TextSpan(*self._texts(piece, "the story"))
        return self.shelf.take(piece)

    def _read_content(self, message: Mapping[str, Any], folder: Path | None) -> Any:
        content = message.get("content")
        if not isinstance(content, Sequence) or isinstance(content, str):
            return content
        return [
            {**block, "image": self.shelf.take(block["image"], folder=folder)}
            if isinstance(block, Mapping)
            and block.get("type") == "image"
            and "image" in block
            and not isinstance(block["image"], ImageSpan)
            else block
            for block in content
        ]


def check_numbers(
    *, seed: int = 0, num_samples: int | None = None, max_images: int | None = None, max_tokens: int | None = None
) -> None:
    """Refuse what is no number of samples or of what a document may go on with (RecipeError); None is not looked at."""
    for name, number in {"num_samples": num_samples, "max_images": max_images, "max_tokens": max_tokens}.items():
        if number is not None:
            check_count(number, name, 0 if name == "max_images" else 1)
    if check_count(seed, "seed", 0) + (num_samples or 1) - 1 > MOST_SEED:
        raise RecipeError(f"seed is {seed}, expected at most {MOST_SEED - (num_samples or 1) + 1}. Next: set a smaller one.")


def _is_named(span: ImageSpan) -> bool:
    """Whether a picture is named and neither encoded nor to be drawn."""
    return span.codes is None and not span.is_hole


def _change(policy: Policy, settings: Mapping[str, Any]) -> Policy:
    known = [field.name for field in fields(policy)]
    changed = {name: value for name, value in settings.items() if value is not None}
    unknown = sorted(set(changed) - set(known))
    if unknown:
        raise RecipeError(f"The sampling policy has no setting {', '.join(unknown)}. Expected some of {', '.join(known)}.")
    return replace(policy, **changed)
