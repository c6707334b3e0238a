"""`slot_lookup`: a table of seen blocks draws and reads everything that is made of them, and nothing else; measured, not assumed."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from plait.data.filling import Pictures
from plait.evaluation.bench import Bench
from plait.images import to_tensor
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.editing import judge_edits
from plait.worlds.emoji.examinations.generation import judge_generation
from plait.worlds.emoji.examinations.lookup import SlotLookup
from plait.worlds.emoji.examinations.plan import list_training_scenes
from plait.worlds.emoji.examinations.understanding import judge_captions, judge_questions, list_questions
from plait.worlds.emoji.questions import TYPES, answer
from plait.worlds.emoji.scenes import Scene, Thing
from tests.worlds.stub_models import PICTURES, PerfectModel, StubTokenizer
from tests.worlds.test_protocol import POLICIES

PATCH = 16


class PatchTokenizer(StubTokenizer):
    """Loses nothing: a code is the number of its patch among all patches so far; with `sees_all`, of the patch and its picture."""

    grid_shapes = ((4, 4),)

    def __init__(self, world, sees_all: bool = False) -> None:
        self.world, self.sees_all = world, sees_all
        self.numbers: dict[tuple, int] = {}
        self.patches: list[np.ndarray] = []

    def codes(self, image_id: str) -> tuple[np.ndarray]:
        picture = self.world.pixels([image_id])[0]
        grid = np.zeros((4, 4), np.int64)
        for row in range(4):
            for column in range(4):
                patch = picture[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                name = (patch.tobytes(), image_id if self.sees_all else "")
                if name not in self.numbers:
                    self.numbers[name] = len(self.patches)
                    self.patches.append(patch)
                grid[row, column] = self.numbers[name]
        return (grid,)

    def decode(self, spans):
        rows = [[np.concatenate([self.patches[code] for code in row], 1) for row in span.codes[0]] for span in spans]
        return to_tensor([Image.fromarray(np.concatenate(picture)) for picture in rows])


class TableModel(PerfectModel):
    """Knows everything; its pictures are those of the patch tokenizer."""

    def __init__(self, world, tokenizer) -> None:
        super().__init__(world)
        self.vision_tokenizer = tokenizer

    def pictures(self, spans):
        drawn = [span.codes[0].shape == (4, 4) for span in spans]
        return self.vision_tokenizer.decode(spans) if all(drawn) else super().pictures(spans)


def make_bench(world, oracle, sees_all: bool = False, n: int = 24) -> tuple[Bench, BlindAnswers]:
    tokenizer = PatchTokenizer(world, sees_all)
    bench = Bench(TableModel(world, tokenizer), world, oracle, Pictures(tokenizer.codes), POLICIES, n=n)
    training = list_training_scenes(world)
    table = SlotLookup.of(bench, training)
    # the model of the stubs is asked with codes that name scenes
    asked = Bench(bench.model, world, oracle, PICTURES, POLICIES, n=n)
    return asked, BlindAnswers(training, lookup=table)


@pytest.fixture(scope="module")
def grid(world, oracle):
    return make_bench(world, oracle)


EXAMINED = {
    "two_objects": partial(judge_generation, num_things=2),
    "captions": partial(judge_captions, task="two_objects"),
    "edits": judge_edits,
}


@pytest.mark.parametrize("name", EXAMINED)
def test_a_table_of_seen_blocks_is_right_on_seen_cells_and_unseen_pairs_and_nowhere_else(grid, name):
    bench, blind = grid
    assert len(blind.lookup.blocks) == 240
    for split, reached in (("val", 1.0), ("test_pair", 1.0), ("test_combo", 0.0)):
        figure = EXAMINED[name](bench, blind, split)[0][f"{split}/{name}"]
        if name == "edits" and split == "test_combo":  # what goes away leaves a seen thing behind
            assert figure.baselines["slot_lookup"] < 0.4
        else:
            assert figure.baselines["slot_lookup"] == reached
        found = figure.to_dict()
        assert found["gap_closed"] == 1.0
        assert found["gap_from"] not in ("slot_lookup", "nearest_caption")
        assert found["exceeds_lookup"] == (not reached)


def test_questions_are_answered_from_the_scene_that_was_read(grid):
    bench, blind = grid
    figures, _ = judge_questions(bench, "test_pair", lookup=blind.lookup)
    assert {figures[f"test_pair/vqa_{kind}"].baselines["slot_lookup"] for kind in TYPES} == {1.0}
    assert figures["test_pair/vqa"].baselines["slot_lookup"] == 1.0
    assert "slot_lookup" not in judge_questions(bench, "test_pair")[0]["test_pair/vqa"].baselines


def test_where_codes_see_the_whole_picture_the_table_is_measured_to_fail(world, oracle):
    bench, blind = make_bench(world, oracle, sees_all=True, n=12)
    figure = judge_captions(bench, blind, "test_pair", "two_objects")[0]["test_pair/captions"]
    assert figure.baselines["slot_lookup"] < 0.2


def test_where_there_is_no_single_grid_there_is_no_table(world, oracle):
    tokenizer = PatchTokenizer(world)
    training = list_training_scenes(world, 5)
    cut = Pictures(lambda name: (tokenizer.codes(name)[0][:2],))
    assert SlotLookup.of(Bench(TableModel(world, tokenizer), world, oracle, cut, POLICIES), training) is None
    model = TableModel(world, None)
    assert SlotLookup.of(Bench(model, world, oracle, cut, POLICIES), training) is None


def test_the_answers_of_the_world_follow_from_question_and_scene(world):
    for split in ("train", "test_combo"):
        source = world.source("vqa", split)
        for document in (source[number] for number in range(40)):
            scene = Scene.from_json(document.meta["scene"])
            assert all(answer(item.text, scene) == item.answer for item in list_questions(document))
    scene = Scene((Thing("red", "car", "centre"),))
    for text in ("where is the cat ?", "what is on the left ?", "what colour is the sky ?", "who are you ?"):
        assert answer(text, scene) is None
