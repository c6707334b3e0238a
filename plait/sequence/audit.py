"""The audit: every token of a batch with the loss that its prediction carries, coloured, for a terminal or as HTML.

What users of unified models ask most is whether the loss sits where they think it does. This shows it, from the tensors that the
model will see and not from the documents they were made of.
"""

import html
from dataclasses import dataclass

from plait.sequence.batch import TERMS, SequenceBatch
from plait.sequence.builder import SequenceBuilder

ANSI = {"text": "\x1b[30;42m", "image": "\x1b[30;46m", None: "\x1b[2m"}
CSS = {"text": "#b7e4c7", "image": "#bde0fe", None: "#f1f1f1"}


@dataclass(frozen=True)
class AuditedToken:
    """A token as people read it, and the loss term of its prediction (None: no loss)."""

    text: str
    term: str | None


def audit(batch: SequenceBatch, builder: SequenceBuilder) -> list[list[AuditedToken]]:
    """The tokens of each document of a batch, in row order."""
    names = {id: f"<{name}>" for name, id in builder.vocabulary.specials.items()}
    indices, locals_ = builder.vocabulary.locate(batch.ids)
    documents = []
    for place in batch.documents:
        tokens = []
        for column in range(place.start, place.start + place.length):
            id = int(batch.ids[place.row, column])
            segment = builder.vocabulary.segments[int(indices[place.row, column])]
            if id in names:
                text = names[id]
            elif segment.kind == "codes":
                offset = id - int(locals_[place.row, column])
                text = " ".join(str(int(code) - offset) for code in batch.patches[place.row, column])
            else:
                text = builder.layout.text.decode([id])
            # the loss of a token is the loss of the position before it
            term = int(batch.terms[place.row, column - 1]) if column > place.start else -1
            tokens.append(AuditedToken(text, TERMS[term] if term >= 0 else None))
        documents.append(tokens)
    return documents


def to_terminal(documents: list[list[AuditedToken]]) -> str:
    """One paragraph per document: green text carries text loss, cyan image loss, dim none."""
    legend = "  ".join(f"{ANSI[term]} {term or 'no loss'} \x1b[0m" for term in (*TERMS, None))
    lines = [" ".join(f"{ANSI[token.term]}{token.text}\x1b[0m" for token in tokens) for tokens in documents]
    return "\n\n".join([legend, *lines])


def to_html(documents: list[list[AuditedToken]]) -> str:
    """A self-contained HTML fragment with the same colours as the terminal."""
    style = "padding:1px 4px;border-radius:3px;margin:1px;display:inline-block;font:12px monospace"

    def mark(text: str, term: str | None) -> str:
        return f'<span style="{style};background:{CSS[term]}" title="{term or "no loss"}">{html.escape(text)}</span>'

    legend = " ".join(mark(term or "no loss", term) for term in (*TERMS, None))
    body = "".join(f"<p>{''.join(mark(token.text, token.term) for token in tokens)}</p>" for tokens in documents)
    return f"<div><p>Loss carried by each token: {legend}</p>{body}</div>"
