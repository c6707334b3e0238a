"""Malformed rows of data of one's own: captions, questions, chats and interleaved documents."""

from pathlib import Path

from tests.malformed.own_rows import SKIP, assert_data_refused, each, own, put
from tests.malformed.standard import Case, table

ROW_1 = r"rows\.jsonl, row rows\.jsonl:2: "
BLOCKS = ("messages", 0, "content")


@table(
    Case(
        "column-missing",
        own("caption", lambda rows: rows[1].pop("caption")),
        ROW_1,
        r"lacks \['caption'\], it has",
        f"Add what .*{SKIP}",
    ),
    Case(
        "caption-a-number",
        own("caption", put(1, "caption", 7)),
        ROW_1,
        r"caption holds '7' \(int\), expected a text",
        f"Correct .*{SKIP}",
    ),
    Case(
        "caption-empty",
        own("caption", put(1, "caption", "  ")),
        ROW_1,
        "caption holds '  ', expected a text with a word",
        "or remove",
    ),
    Case(
        "id-twice",
        own("caption", put(1, "id", "row-0")),
        ROW_1,
        r"id 'row-0' is that of row rows\.jsonl:1 too, expected",
        "Rename one",
    ),
    Case(
        "answers-fewer",
        own("vqa", put(1, "answer", ["one"])),
        ROW_1,
        "2 questions in question, 1 answers in answer, expected as",
        "Correct",
    ),
    Case(
        "answer-nothing",
        own("vqa", put(1, "answer", ["one", None])),
        ROW_1,
        "holds nothing, expected a text",
        "Correct the row",
    ),
    Case(
        "turn-malformed",
        own("vqa", each(lambda row: row.update(turns=[{"q": row.pop("question"), "a": row.pop("answer")}]))),
        r"row rows\.jsonl:1",
        r"turns\[0\] is .*expected an object with the keys 'question' and 'answer'",
        "Rename them",
    ),
    Case(
        "unknown-role",
        own("chat", put(1, "messages", 0, "role", "system")),
        ROW_1,
        r"messages\[0\] has the role 'system', expected 'user'",
        "into the user's first message",
    ),
    Case(
        "no-answer",
        own("chat", lambda rows: rows[1]["messages"].pop()),
        ROW_1,
        "ends with the user, expected the assistant",
        "Add the ans",
    ),
    Case(
        "placeholders-differ",
        own("chat", put(1, "images", ["images/000.png", "images/001.jpg"])),
        ROW_1,
        r"1 blocks .* take a picture, and images holds 2, expected as many",
        "Add what is missing",
    ),
    Case(
        "placeholder-in-text",
        own("chat", put(1, "messages", 0, "content", "<image> What is it?")),
        ROW_1,
        "0 blocks .* images holds 1",
        r"placeholder inside a text \(<image>\) is a block",
    ),
    Case(
        "unknown-block",
        own("chat", put(1, *BLOCKS, 0, {"type": "audio"})),
        ROW_1,
        "holds .*audio.*expected blocks of type",
        "Rename it",
    ),
    Case(
        "content-nothing",
        own("chat", put(1, "messages", 1, "content", None)),
        ROW_1,
        "holds nothing, expected a list",
        "Correct the row",
    ),
    Case(
        "lists-differ",
        own("interleaved", put(1, "texts", ["one"])),
        ROW_1,
        "4 places in images, 1 in texts, expected one",
        "Correct",
    ),
    Case(
        "place-of-both",
        own("interleaved", put(1, "texts", 1, "both")),
        ROW_1,
        "place 1 .*a picture and a text, expected one",
        "Correct",
    ),
    Case(
        "place-of-none",
        own("interleaved", put(1, "texts", 0, None)),
        ROW_1,
        "place 0 .*holds nothing, expected one",
        "Correct the row",
    ),
)
def test_a_malformed_row_is_refused(case: Case, tmp_path: Path) -> None:
    assert_data_refused(case, tmp_path)
