"""The world in words, without its pictures."""

from plait.document import Document, ImageSpan, TextSpan
from plait.systems.liquid import CHAT as GEMMA
from plait.systems.synergen_vl import CHAT as INTERNLM
from plait.worlds.emoji.told import ToldDialogues

WORDINGS = (GEMMA, INTERNLM)

SCENE = {
    "objects": [{"colour": "green", "object": "tree", "slot": "top"}, {"colour": "green", "object": "star", "slot": "bottom"}]
}


def test_a_dialogue_about_a_picture_is_told_in_the_wordings_of_chats() -> None:
    turns = [
        TextSpan(text, loss=bool(index % 2))
        for index, text in enumerate(["where is the tree ?", "top", "what is at the bottom ?", "star"])
    ]
    shown = Document((ImageSpan("scene"), *turns), id="d", meta={"scene": SCENE})
    told = ToldDialogues([shown, shown], WORDINGS)
    gemma, internlm = told
    assert len(told) == 2
    assert gemma.text == (
        "<start_of_turn>user\na green tree above a green star\nwhere is the tree ?<end_of_turn>\n<start_of_turn>model\ntop<end_of_turn>\n"
        "<start_of_turn>user\nwhat is at the bottom ?<end_of_turn>\n<start_of_turn>model\nstar<end_of_turn>\n"
    )
    assert internlm.text.startswith(
        "<|im_start|>user\na green star below a green tree\nwhere is the tree ?<|im_end|>\n<|im_start|>assistant"
    )
    assert not gemma.images
    assert all(span.loss for document in told for span in document.spans)
    assert ToldDialogues([shown], WORDINGS, most=1)[0].text.count("user") == 1
