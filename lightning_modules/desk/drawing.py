"""The job of `plait-generate`: ask a finished model for a picture, an answer, an edit or a story, and show what came of it."""

import logging
from collections.abc import Sequence
from typing import Any

from lightning_modules.composing.arguments import checked_by
from lightning_modules.desk.asking import Asker, check_numbers
from lightning_modules.desk.requests import read_request

log = logging.getLogger(__name__)


def check_drawing(
    *,
    prompt: str | Sequence[str] | None = None,
    image: str | None = None,
    question: str | Sequence[str] | None = None,
    edit: str | Sequence[str] | None = None,
    document: str | None = None,
    kind: str | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    max_images: int = 4,
    max_tokens: int = 120,
) -> None:
    """Refuse what is no request, and numbers that cannot be met."""
    read_request(prompt=prompt, image=image, question=question, edit=edit, document=document, kind=kind)
    check_numbers(seed=seed, num_samples=num_samples, max_images=max_images, max_tokens=max_tokens)


@checked_by(check_drawing)
def draw(
    *,
    asker: Asker,
    folder: str,
    prompt: str | Sequence[str] | None = None,
    image: str | None = None,
    question: str | Sequence[str] | None = None,
    edit: str | Sequence[str] | None = None,
    document: str | None = None,
    kind: str | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    max_images: int = 4,
    max_tokens: int = 120,
    is_compiled: bool = False,
) -> list[str]:
    """Ask and write what came of it.

    Args:
        folder: where pictures, page and record go.
        prompt, image, question, edit, document, kind: see `lightning_modules.desk.requests.read_request`.
        num_samples: of each request; None takes 4 of what is drawn and 1 of an answer.
        max_images, max_tokens: of what goes on by itself.
        is_compiled: compile the model first; takes half a minute or more, pays where many codes are drawn.

    Returns:
        The files written.

    Raises:
        DocumentError: nothing or too much is asked for, or a file cannot be read.
        VocabularyError: a word that the model does not know.
    """
    request = read_request(prompt=prompt, image=image, question=question, edit=edit, document=document, kind=kind)
    if is_compiled:
        asker.model.compile_generation(options={"freezing": True})
    if num_samples is None:
        num_samples = 1 if request.kind in ("caption", "question", "chat") else 4
    how: dict[str, Any] = {"seed": seed, "num_samples": num_samples, "max_images": max_images, "max_tokens": max_tokens}
    answers = asker.answer(request, **how)
    answers.title = ", ".join(request.texts) or (document or image or "")
    files = answers.save(folder)
    for answer in answers:
        made = [answer.text] if answer.text else []
        made += [f"{len(answer.pictures)} picture{'s' * (len(answer.pictures) > 1)}"] if answer.pictures else []
        asked = f"{answer.sample.title}: " if answer.sample.title else ""
        log.info("%s(%s, seed %s) %s", asked, request.kind, answer.seed, " and ".join(made) or "nothing")
    log.info("wrote\n%s", "\n".join(map(str, files)))
    return [str(file) for file in files]
