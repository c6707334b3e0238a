"""Config -> objects: what is allowed, what is shared, and what the messages say."""

import functools

import pytest
import torch
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly, instantiate, locate
from plait.document import TextSpan
from plait.errors import RecipeError

STUB = "tests.lightning_modules.stub_jobs.Part"


@pytest.fixture(autouse=True)
def _own_root(monkeypatch):
    monkeypatch.setenv("PLAIT_IMPORT_ROOTS", "tests")


@pytest.mark.parametrize(
    "target",
    [
        # each of these passes the list of Hydra 1.3.8
        "torch.load",
        "torch.hub.load",
        "torch.utils.cpp_extension.load_inline",
        "pip.main",
        "urllib.request.urlopen",
        "numpy.load",
        "transformers.AutoModel.from_pretrained",
        "os.system",
        "builtins.eval",
        "lightning.pytorch.LightningModule.load_from_checkpoint",
        "plait",
        "plait.document._span_to_json",
        "plait..document",
        7,
    ],
)
def test_a_foreign_target_is_refused_by_name_alone(target, monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(RecipeError, match=r"part: _target_ .* is not allowed"):
        Assembly(OmegaConf.create({"part": {"_target_": target}, "fine": 1}))


@pytest.mark.parametrize(
    "target", ["plait.document.json.loads", "plait.document.json", "lightning_modules.folders.run_folder.os.replace"]
)
def test_what_was_only_imported_there_is_refused(target):
    with pytest.raises(RecipeError, match="expected a class, function or class method defined"):
        locate(target)


def test_of_other_packages_only_classes_are_taken():
    assert locate("torch.optim.AdamW") is torch.optim.AdamW
    with pytest.raises(RecipeError, match="expected a class defined"):
        locate("torch.optim.adamw.adamw")


def test_a_forbidden_target_is_refused_wherever_it_hides():
    config = OmegaConf.create({"job": {"_target_": STUB, "other": [{"deep": {"_target_": "torch.load", "f": "x"}}]}})
    with pytest.raises(RecipeError, match=r"job\.other\[0\]\.deep: _target_ 'torch.load'"):
        Assembly(config)


def test_one_node_is_one_object():
    config = OmegaConf.create(
        {
            "part": {"_target_": STUB, "size": 3},
            "alias": "${part}",
            "first": {"_target_": STUB, "other": "${part}"},
            "second": {"_target_": STUB, "other": ["${alias}"], "size": "${part.size}"},
            "third": {"_target_": STUB, "other": "${part_of:first.other}"},
        }
    )
    assembly = Assembly(config)
    part = assembly.build("part")
    assert assembly.build("first").other is part
    assert assembly.build("second").other == (part,)
    assert assembly.build("second").size == 3
    assert assembly.build("third").other is part
    assert assembly.build("alias") is part


def test_given_objects_stand_for_their_node():
    stand_in = object()
    config = OmegaConf.create({"part": {"_target_": STUB}, "user": {"_target_": STUB, "other": "${part}"}})
    assert Assembly(config, {"part": stand_in}).build("user").other is stand_in


def test_partials_positional_arguments_and_class_methods():
    partial = instantiate(OmegaConf.create({"_target_": STUB, "_partial_": True, "size": 2}))
    assert isinstance(partial, functools.partial)
    assert partial().size == 2
    assert instantiate(OmegaConf.create({"_target_": f"{STUB}.of_size", "_args_": [5]})).size == 5
    assert instantiate(OmegaConf.create({"_target_": "plait.document.TextSpan", "text": "a"}), loss=True) == TextSpan("a", True)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": STUB, "width": 1}, r"part: .*Part got an unexpected keyword argument 'width'. Given: width"),
        ({"_target_": STUB, "size": "${nowhere}"}, "nowhere: there is no such node"),
        ({"_target_": STUB, "size": "???"}, r"part\.size is not set\. Expected a value\. Next: set part\.size="),
        ({"_target_": STUB, "_recursive_": False}, r"part: unknown control key \['_recursive_'\]"),
        ({"_target_": STUB, "other": "${part_of:base.nothing}"}, "the Part at 'base' has no part 'nothing'"),
        ({"_target_": "plait.document.Paragraph"}, "plait.document has no 'Paragraph'"),
        ({"_target_": "plait.nowhere.Part"}, "plait has no 'nowhere'"),
    ],
)
def test_messages(node, message):
    assembly = Assembly(OmegaConf.create({"part": node, "base": {"_target_": STUB}}))
    with pytest.raises(RecipeError, match=message):
        assembly.build("part")


def test_an_error_of_a_component_says_where_in_the_config():
    config = OmegaConf.create({"world": {"_target_": "plait.worlds.emoji.world.EmojiWorld", "image_size": 13}})
    with pytest.raises(RecipeError) as caught:
        Assembly(config).build("world")
    assert caught.value.__notes__ == ["while building world (plait.worlds.emoji.world.EmojiWorld)"]
