"""The encoders of transformers: one form of output for all of them, resizing, and what is refused."""

import json

import pytest
import torch

from plait.errors import RecipeError
from plait.protocols import VisionEncoder
from plait.vision.encoder import TransformersVision
from plait.vision.inputs import PictureInput

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}


def make(architecture: str = "siglip_vision_model", **settings) -> TransformersVision:
    torch.manual_seed(0)
    return TransformersVision.from_config(architecture, (32, 32), **{**SIZES, **settings}).eval()


@pytest.mark.parametrize("architecture", ["siglip_vision_model", "vit", "clip_vision_model", "dinov2_with_registers"])
def test_every_architecture_gives_a_pooled_embedding_and_a_map(architecture: str) -> None:
    encoder = make(architecture)
    assert isinstance(encoder, VisionEncoder)
    features = encoder(torch.rand(3, 3, 32, 32) * 2 - 1)
    assert features.pooled.shape == (3, encoder.width) == (3, 16)
    assert features.patches.shape == (3, 16, *encoder.grid_shape) == (3, 16, 4, 4)


@pytest.mark.parametrize("architecture", ["siglip_vision_model", "vit", "dinov2_with_registers"])
def test_the_map_holds_the_patches_in_place(architecture: str) -> None:
    """What one patch of the input changes most is its own place in the map: class and register tokens are not in it."""
    encoder = make(architecture)
    images = torch.zeros(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] = 1.0
    moved = (encoder(changed).patches - encoder(images).patches).norm(dim=1)[0]
    assert divmod(int(moved.argmax()), 4) == (1, 2)


def test_a_convolutional_model_gives_its_own_map() -> None:
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": (8, 8, 16), "depths": (1, 1, 1), "layer_type": "basic"}
    encoder = TransformersVision.from_config("resnet", (32, 32), **sizes)
    assert encoder.model.training
    assert all(float(buffer.abs().sum()) == 0 for name, buffer in encoder.named_buffers() if name.endswith("running_mean"))
    features = encoder(torch.zeros(2, 3, 32, 32))
    assert (encoder.width, encoder.grid_shape) == (16, (2, 2))
    assert features.patches.shape == (2, 16, 2, 2)
    assert features.pooled.shape == (2, 16)


def test_pictures_of_another_size_are_resized_and_stay_in_range() -> None:
    prepare = PictureInput((32, 32), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = torch.ones(1, 3, 64, 64)
    images[:, :, :32] = -1.0
    prepared = prepare(images)
    assert prepared.shape == (1, 3, 32, 32)
    assert float(prepared.min()) == 0.0
    assert float(prepared.max()) == 1.0
    same = torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(prepare(same), (same + 1) / 2)
    assert not prepare.state_dict(), "settings are no weights"


def test_released_weights_come_back_from_a_folder_with_their_normalisation(tmp_path) -> None:
    encoder = make()
    encoder.model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}')
    again = TransformersVision.from_pretrained(tmp_path).eval()
    assert again.image_size == (32, 32)
    torch.testing.assert_close(again.input.mean.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        again.model(pixel_values=pixels).last_hidden_state, encoder.model(pixel_values=pixels).last_hidden_state
    )


def test_says_what_is_wrong(tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"architecture=no_such_model.*correct the node `vision`"):
        make("no_such_model")
    with pytest.raises(RecipeError, match=r"name_or_folder=.*transformers cannot read it.*preprocessor_config\.json"):
        TransformersVision.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("resnet", "attn_implementation"), ("resnet", "auto_map"), ("detr", "use_pretrained_backbone"), ("detr", "backbone")],
)
def test_a_setting_names_no_weights_and_no_code(architecture, name) -> None:
    with pytest.raises(RecipeError, match=f"'{name}' is no setting of a model from config"):
        TransformersVision.from_config(architecture, [32, 32], **{name: "evil/kernel"})


def test_a_release_brings_no_attention_of_its_own(tmp_path) -> None:
    make().model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/kernel"}))
    with pytest.raises(RecipeError, match="names the attention 'evil/kernel', code of a repository"):
        TransformersVision.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="trust_remote_code"):
        TransformersVision.from_pretrained(tmp_path, trust_remote_code=True)
