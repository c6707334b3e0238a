"""Pictures as features: what is read at once, packed, padded or through a cache is the same, and so are pictures that a head finishes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plait.document import Document, ImageSpan, TextSpan
from plait.errors import LayoutError, RecipeError
from plait.heads.shared import SharedHead
from plait.heads.tokens import TokenHead
from plait.objectives.next_token import next_token
from plait.sampling.policies import SamplingPolicy
from plait.sequence.batch import ImagePlace
from plait.sequence.builder import SequenceBuilder
from plait.sequence.frames import BEGIN, Frame
from plait.sequence.layout import DocumentLayout
from plait.systems.mllm import MllmTemplate, build
from plait.systems.text_side import open_vocabulary, text_and_marker_rows
from plait.systems.unified import UnifiedModel
from plait.vision.connector import Projector
from plait.vision.encoder import TransformersVision
from plait.vision.features import FeatureInput
from tests.systems.test_synergen_vl import PIECES, tiny_backbone
from tests.systems.words import words_of

GREEDY = {"text": SamplingPolicy(temperature=0.0), "image": SamplingPolicy(temperature=0.0)}
SIZE = (16, 16)
Text = words_of(MllmTemplate().texts(), PIECES)


def tiny_encoder() -> TransformersVision:
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    return TransformersVision.from_config("resnet", SIZE, **sizes)


def parts():
    torch.manual_seed(0)
    backbone, encoder = tiny_backbone(vocab_size=Text.size + 5), tiny_encoder()
    connector = Projector(feature_width=encoder.width, grid_shape=encoder.grid_shape, width=backbone.width)
    return backbone, encoder, connector


def tiny_mllm() -> UnifiedModel:
    backbone, encoder, connector = parts()
    model = build(
        backbone=backbone, encoder=encoder, connector=connector, text_tokenizer=Text(), template=MllmTemplate(), max_tiles=3
    )
    return loud(model)


def loud(model: UnifiedModel) -> UnifiedModel:
    """Weights so large that everything that is read shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "encoder" not in name:
                parameter.normal_(std=0.3)
    return model.eval()


def picture(seed: int, tiles: int = 0) -> ImageSpan:
    shape = (tiles, *SIZE, 3) if tiles else (*SIZE, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return ImageSpan(f"p{seed}", form="features", pixels=pixels)


def dialogue(seed: int, tiles: int = 0) -> Document:
    """A question about a picture, an answer, and another picture in the next turn."""
    spans = (
        TextSpan("a"),
        picture(seed, tiles),
        TextSpan("the car is red", loss=True),
        picture(seed + 100),
        TextSpan("blue", loss=True),
    )
    return Document(spans, id=str(seed), ends=False)


DIALOGUES = [dialogue(0), dialogue(1, tiles=2), replace(dialogue(2), spans=dialogue(2).spans[:3]), dialogue(3, tiles=3)]


def test_packed_equals_padded() -> None:
    model = tiny_mllm()
    length = max(len(model.builder.encode(document)) for document in DIALOGUES)
    padded = model.score(DIALOGUES)
    packed = model.loss(model.builder.build(DIALOGUES, row_length=2 * length)).sums["text"]
    torch.testing.assert_close(packed, padded.sum(), atol=1e-4, rtol=1e-5)


def test_a_picture_changes_what_is_said_and_trains_its_connector() -> None:
    model = tiny_mllm()
    other = [replace(d, spans=(d.spans[0], replace(picture(9), image_id="x"), *d.spans[2:])) for d in DIALOGUES[:1]]
    assert not torch.allclose(model.score(DIALOGUES[:1]), model.score(other))
    model.loss(model.builder.build(DIALOGUES)).sums["text"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.image_input.connector.parameters() if parameter.ndim > 1)


def test_a_batch_of_eight_equals_eight_singles() -> None:
    model = tiny_mllm()
    prompts = [model.template.question_prompt(picture(seed), "the car is ?") for seed in range(4)]
    prompts += [replace(d, spans=d.spans[:-1], id=f"{d.id}-open") for d in DIALOGUES if len(d.spans) > 3]
    prompts += [model.template.caption_prompt(picture(8, tiles=2))]
    policies = {"text": SamplingPolicy(), "image": SamplingPolicy()}
    together = model.generate(prompts, policies, range(8), max_tokens=12)
    for seed, prompt in enumerate(prompts):
        assert model.generate([prompt], policies, [seed], max_tokens=12) == [together[seed]]
    assert len({document.text for document in together}) > 4


def test_what_is_written_through_a_cache_is_best_where_all_is_read_at_once() -> None:
    model = tiny_mllm()
    for document in model.generate([model.template.caption_prompt(picture(seed)) for seed in range(3)], GREEDY, range(3)):
        batch = model.builder.build([document])
        with torch.inference_mode():
            logits = model.head.logits(model.hidden(batch)[0], [0])[:, 3 : Text.size]  # words alone are legal
        inner = batch.wanted["text"].places[:-1]  # the last one is the end of the document, whatever is likely
        assert torch.equal(logits[inner].argmax(-1) + 3, batch.targets.flatten()[inner])


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4), (2,), (1, 4)])
def test_a_picture_that_is_appended_in_the_middle_of_a_dialogue(cuts) -> None:
    """Span by span through a cache, rows of unequal length side by side, against everything read at once."""
    model = tiny_mllm()
    documents = [dialogue(0), dialogue(1, tiles=2)]
    whole = [model.builder.build([document]) for document in documents]
    cache = model.backbone.new_cache(2, 200)
    told: list[list[torch.Tensor]] = [[], []]
    with torch.inference_mode():
        for first, last in zip((0, *cuts), (*cuts, 5), strict=True):
            runs = [model.builder.encode(replace(document, spans=document.spans[first:last])) for document in documents]
            reading, lengths = read_on(model, runs, skip=int(first > 0))
            layout = cache.append(torch.arange(2), lengths)
            embeddings, side = model.read(reading)
            hidden = model.backbone(embeddings, layout, side=side, cache=cache)
            for row, length in enumerate(lengths.tolist()):
                told[row].append(hidden[row, :length])
        for row, batch in enumerate(whole):
            torch.testing.assert_close(torch.cat(told[row]), model.hidden(batch)[0], atol=2e-4, rtol=1e-4)


def read_on(model: UnifiedModel, runs, skip: int):
    """What is read row by row without its first `skip` tokens (the marker that begins a document stands once), and how many tokens."""
    lengths = torch.tensor([len(run) - skip for run in runs])
    ids = np.full((len(runs), int(lengths.max())), model.builder.vocabulary.specials["pad"])
    cells, images = np.full_like(ids, -1), []
    for row, run in enumerate(runs):
        ids[row, : lengths[row]], cells[row, : lengths[row]] = run.ids[skip:], run.cells[skip:]
        images += [ImagePlace(row, start - skip, count, span) for start, count, span in run.images]
    return model.builder.place(ids, cells, np.full((*ids.shape, 1), -1), images), lengths


class Painter(TokenHead):
    """Finishes a picture from the state of its marker and from noise: what a diffusion decoder is to a sampler."""

    def __init__(self, width: int) -> None:
        super().__init__(("image",), ())
        self.map = nn.Linear(width, 3 * SIZE[0] * SIZE[1])
        self.seen: list[int] = []

    def observe(self, generation, rows, hidden, layout) -> None:
        generation.states.setdefault("painter", []).append(len(rows))
        self.seen.append(len(rows))

    def step(self, generation, turn):
        states = generation.last.index_select(0, turn.rows.flatten()).chunk(len(turn.rows))[0]
        return torch.tanh(self.map(states)).unflatten(1, (3, *SIZE))


def tiny_painter() -> UnifiedModel:
    backbone, encoder, connector = parts()
    vocabulary = open_vocabulary(backbone, Text())
    frame = Frame(lengths=(connector.tokens_per_tile,), before=(BEGIN,), after=(), target="picture")
    template = MllmTemplate()
    head = SharedHead(text_and_marker_rows(backbone, vocabulary), terms=("text",), objectives=(next_token,))
    model = UnifiedModel(
        parts={
            "backbone": backbone,
            "head": head,
            "painter": Painter(backbone.width),
            "image_input": FeatureInput(encoder, connector),
        },
        heads=("head", "painter"),
        inputs=("image_input",),
        builder=SequenceBuilder(DocumentLayout(vocabulary, Text(), [frame], template.marks)),
        template=template,
    )
    return loud(model)


def test_pictures_that_a_head_finishes_re_enter_as_features() -> None:
    """Rows that write, rows that fill holes and rows that read pictures side by side, against each by itself."""
    model = tiny_painter()
    hole = ImageSpan("hole", form="features")
    prompts = [
        Document((TextSpan("a red car"),), id="writes", ends=False),
        Document((TextSpan("the car is red"), hole, TextSpan("blue"), hole), id="two holes", ends=False),
        Document((picture(5), TextSpan("the"), hole), id="reads and draws", ends=False),
    ]
    policies = {"text": SamplingPolicy(), "image": SamplingPolicy()}
    budget = {"max_images": 2, "max_tokens": 60}
    together = model.generate(prompts, policies, range(3), **budget)
    alone = [model.generate([prompt], policies, [seed], **budget)[0] for seed, prompt in enumerate(prompts)]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        for mine, theirs in zip(one.images, other.images, strict=True):
            # rounded to 8 bit, which a difference of 1e-7 may tip
            assert np.abs(mine.pixels.astype(int) - theirs.pixels.astype(int)).max() <= 1
    assert [len(document.images) for document in together] == [len(document.images) for document in alone]
    assert sum(len(document.images) for document in together) > 4, "some were begun of its own accord"
    assert max(model.painter.seen) == 3, "the head saw every call"
    batch = model.builder.build(together)
    assert sorted(model.builder.read(batch), key=lambda d: d.id) == sorted((d.merged() for d in together), key=lambda d: d.id)


def test_what_it_does_not_do_is_refused_by_name() -> None:
    model = tiny_mllm()
    edit = (ImageSpan("a"), TextSpan("make it blue"), ImageSpan("b", loss=True))
    with pytest.raises(RecipeError, match=r"Document 'd' has a picture to be drawn.*this system draws none"):
        model.template.wrap(Document(edit, id="d", kind="dialogue"), 0)
    with pytest.raises(LayoutError, match="has 4 tiles, expected at most 3"):
        model.builder.build([dialogue(0, tiles=4)])
    assert model.positions_per_image == model.image_input.connector.tokens_per_tile
    assert model.builder.layout.drawn_frame is None
