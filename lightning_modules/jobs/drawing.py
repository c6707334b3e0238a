"""The job of `plait-generate`: complete a prompt or a document of the user's own and show what came of it."""

import json
import logging
from pathlib import Path
from typing import Any

import torch

from plait.data.mixture import encode_images
from plait.document import Document, ImageSpan
from plait.errors import DocumentError
from plait.images import open_image, to_pictures, to_tensor
from plait.protocols import Policy
from plait.rendering import Cell, Sample, contact_sheet, render_html

log = logging.getLogger(__name__)


def draw(
    *,
    model: Any,
    folder: str,
    text_policy: Policy,
    image_policy: Policy,
    prompt: str | None = None,
    document: str | None = None,
    num_samples: int = 4,
    seed: int = 0,
    max_images: int = 4,
    max_tokens: int = 120,
    is_compiled: bool = False,
) -> list[str]:
    """Complete a prompt `num_samples` times.

    Args:
        prompt: a description to draw.
        document: instead, the path of a JSON document (see `plait.document.Document.to_json`): its images are files (image_id is a
            path), an image with form "codes" and no file is drawn, and the model goes on after the last span.
        max_images, max_tokens: of a document, after its last span.
        is_compiled: compile the model first; takes half a minute or more, pays where many codes are drawn.

    Returns:
        The files written.

    Raises:
        DocumentError: neither or both are given, or the document cannot be read.
        VocabularyError: a word that the model does not know.
    """
    if (prompt is None) == (document is None):
        raise DocumentError(
            f"prompt={prompt!r} and document={document!r}: expected one of them. "
            "Give either prompt='a red car' or document=<path of a JSON document>, and not both."
        )
    if num_samples < 1:
        raise DocumentError(f"num_samples is {num_samples}, expected at least 1. Set num_samples=<number>.")
    pictures: dict[str, Any] = {}
    if prompt is not None:
        start, budget = model.template.draw_prompt(prompt), {"max_tokens": 1}
    else:
        start, pictures = read_document(Path(document), model)
        budget = {"max_images": max_images, "max_tokens": max_tokens}
    if is_compiled:
        model.compile_generation(options={"freezing": True})
    seeds = list(range(seed, seed + num_samples))
    made = model.generate([start] * num_samples, {"text": text_policy, "image": image_policy}, seeds, **budget)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    samples, cells, files = [], [], []
    for number, (one_seed, result) in enumerate(zip(seeds, made, strict=True)):
        drawn = [span for span in result.images if span.image_id not in pictures and span.codes is not None]
        shown = to_pictures(model.pictures(drawn)) if drawn else []
        for order, picture in enumerate(shown):
            path = place / f"sample-{number}-picture-{order}.png"
            picture.save(path)
            files.append(str(path))
            cells.append(Cell(picture, f"seed {one_seed}"))
        own = {id(span): picture for span, picture in zip(drawn, shown, strict=True)}
        samples.append(
            Sample(
                result,
                lambda span, own=own: own.get(id(span), pictures.get(span.image_id)),
                seed=one_seed,
                given=len(start.spans) - int(any(span.is_hole for span in start.images)),
            )
        )
    (place / "samples.html").write_text(render_html(samples, title=prompt or Path(document).name), encoding="utf-8")
    (place / "samples.json").write_text(json.dumps([sample.to_json() for sample in samples], indent=1), encoding="utf-8")
    files += [str(place / "samples.html"), str(place / "samples.json")]
    if cells:
        contact_sheet(cells, columns=min(8, len(cells)), title=prompt or "").save(place / "sheet.png")
        files.append(str(place / "sheet.png"))
    for result in made:
        log.info("%s", " ".join("[picture]" if isinstance(span, ImageSpan) else span.text for span in result.spans))
    log.info("wrote %s", ", ".join(files))
    return files


def read_document(path: Path, model: Any) -> tuple[Document, dict[str, Any]]:
    """A user's document with its image files encoded, and the pictures by image id.

    Raises:
        DocumentError: the file is missing or no document, or an image cannot be read.
    """
    try:
        raw = Document.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DocumentError(
            f"{path} cannot be read as a document: {error}. Expected JSON with a list `spans`. Check the path and the JSON."
        ) from error
    except DocumentError as error:
        raise DocumentError(f"{path}: {error}") from error
    size = model.vision_tokenizer.image_size
    pictures, codes = {}, {}
    for span in raw.images:
        if span.is_hole:
            continue
        image = open_image(path.parent / span.image_id)
        if image.size != (size[1], size[0]):
            log.warning("%s: %d x %d pixels are read as %d x %d", span.image_id, *image.size, size[1], size[0])
            image = image.resize((size[1], size[0]))
        with torch.inference_mode():
            levels = model.vision_tokenizer.encode(to_tensor([image]))
        pictures[span.image_id], codes[span.image_id] = image, tuple(level[0].numpy() for level in levels)
    worded = model.template.story_prompt(raw.spans)
    holes = {span.image_id for span in raw.images if span.is_hole}
    spans = tuple(
        span
        if not isinstance(span, ImageSpan) or span.image_id in holes
        else encode_images(Document((span,)), codes.__getitem__).spans[0]
        for span in worded.spans
    )
    return Document(spans, id=raw.id or path.stem, ends=False), pictures
