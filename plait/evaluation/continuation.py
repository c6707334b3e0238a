"""Documents that a model goes on with, to be looked at: each is given up to what is to be learned from it, and nobody judges."""

from dataclasses import replace
from typing import Any

from plait.document import Document, ImageSpan
from plait.evaluation.bench import Bench
from plait.evaluation.figures import Figure, Record

SHOWN, MAX_IMAGES, MAX_TOKENS = 12, 2, 64
ABOUT = {
    "samples": ("what it makes of held-out documents", "held-out documents that the model goes on with: nobody judges them")
}


def judge_continuations(bench: Bench, documents: Any, split: str) -> tuple[dict[str, Figure], list[Record]]:
    """Go on with the first documents of a split, with pairs in both directions.

    Args:
        documents: `plait.evaluation.documents.Documents`.

    Returns:
        no figure, and records without scores.

    Raises:
        UnaskableError: a prompt does not fit the model.
    """
    key, taken = f"{split}/samples", documents.take(split, min(bench.n, SHOWN))
    whole = [worded for ways in taken for worded in ways][:SHOWN]
    prompts = [cut_prompt(document) for document in whole]
    completions = bench.complete(key, prompts, max_images=MAX_IMAGES, max_tokens=MAX_TOKENS, is_prose=True)
    records = []
    for document, completion, shown in zip(whole, completions, bench.illustrate(completions), strict=True):
        facts = (document.text, "", document.id, completion.seed)
        records.append(Record(key, completion.document, shown, {}, *facts, prompt=completion.prompt))
    return {}, records


def cut_prompt(document: Document) -> Document:
    """An encoded document up to the first span after its beginning that is to be learned; a picture there becomes a hole."""
    first = next((index for index, span in enumerate(document.spans) if span.loss and index), len(document.spans))
    spans = tuple(
        replace(span, loss=False, **({"begin_loss": False} if isinstance(span, ImageSpan) else {})) for span in document.spans
    )
    hole = (ImageSpan("drawn", form="codes"),) if first < len(spans) and isinstance(spans[first], ImageSpan) else ()
    return Document((*spans[:first], *hole), id=document.id, ends=False)
