"""From features to tokens: the published order of a pixel shuffle, the maps written out, tiles, and what is refused."""

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional

from plait.errors import LayoutError, RecipeError
from plait.vision.connector import Projector, fold_features, join_tiles
from tests import goldens


def make(**settings) -> Projector:
    torch.manual_seed(0)
    return Projector(**{"feature_width": 6, "grid_shape": (4, 6), "width": 10, **settings})


@pytest.mark.parametrize("path", goldens.family("internvl_vision*"))
def test_golden_pixel_shuffle(path) -> None:
    """Version v2 of the public code; v1 mixes up rows and columns."""
    golden = goldens.read(path)
    found = fold_features(goldens.tensor(golden["ps_in"]).permute(0, 3, 1, 2), (2, 2))
    assert torch.equal(found, goldens.tensor(golden["ps_v2"]).flatten(1, 2))
    assert not torch.equal(found, goldens.tensor(golden["ps_v1"]).flatten(1, 2))


@pytest.mark.parametrize("path", goldens.family("internvl_vision*"))
def test_golden_projector(path) -> None:
    """`mlp1` of the public code after its own encoder."""
    golden = goldens.read(path)
    released = {name.removeprefix("mlp1."): value for name, value in goldens.weights(golden).items() if "mlp1" in name}
    patches = goldens.tensor(golden["last_hidden_state"])[:, 1:]  # without the class token
    (width, side) = released["3.weight"].shape[0], int(patches.shape[1] ** 0.5)
    sizes = {"feature_width": patches.shape[2], "grid_shape": (side, side), "width": width}
    connector = Projector(**sizes, fold=(2, 2), has_norm=True)
    names = {"0": "norm", "1": "maps.0", "3": "maps.2"}
    connector.load_state_dict({f"{names[name[0]]}{name[1:]}": value for name, value in released.items()})
    tokens = connector(patches)
    assert tokens.shape[1] == connector.tokens_per_tile
    torch.testing.assert_close(tokens, goldens.tensor(golden["features"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("layers", "has_norm", "has_bias"), [("linear", False, True), ("linear", True, False), ("mlp", True, True)]
)
def test_tokens_are_the_maps_written_out(layers: str, has_norm: bool, has_bias: bool) -> None:
    connector, features = make(layers=layers, fold=(2, 3), has_norm=has_norm, has_bias=has_bias), torch.randn(3, 6, 4, 6)
    tokens = connector(features)
    assert tokens.shape == (3, connector.tokens_per_tile, 10) == (3, 4, 10)
    own = torch.stack([features[:, :, 2 + row, 3 + column] for row in range(2) for column in range(3)], 1).flatten(
        1
    )  # of the last token
    own = functional.layer_norm(own, own.shape[1:]) if has_norm else own
    linear = [layer for layer in connector.maps if isinstance(layer, nn.Linear)]
    assert len(linear) == (2 if layers == "mlp" else 1)
    expected = functional.linear(own, linear[0].weight, linear[0].bias)
    expected = functional.linear(functional.gelu(expected), linear[1].weight, linear[1].bias) if layers == "mlp" else expected
    assert (linear[0].bias is None) == (not has_bias)
    torch.testing.assert_close(tokens[:, -1], expected)


def test_a_map_and_its_raster_give_the_same_tokens() -> None:
    connector, features = make(fold=(2, 2)), torch.randn(2, 6, 4, 6)
    assert torch.equal(connector(features), connector(features.flatten(2).transpose(1, 2)))


def test_pictures_take_the_tokens_of_their_tiles() -> None:
    tokens = torch.randn(6, 4, 10)
    pictures = join_tiles(tokens, [1, 3, 2])
    assert [len(picture) for picture in pictures] == [4, 12, 8]
    assert torch.equal(pictures[1], tokens[1:4].reshape(12, 10))


def test_says_what_does_not_fit() -> None:
    with pytest.raises(RecipeError, match="fold is 3 x 2, which does not divide the encoder's grid of 4 x 6 features"):
        make(fold=(3, 2))
    for shape in ((2, 5, 4, 6), (2, 6, 6, 4), (2, 25, 6), (2, 6)):
        with pytest.raises(LayoutError, match=r"got features \(2, .*expected \(n, 6, 4, 6\) or \(n, 24, 6\) in raster order"):
            make()(torch.randn(shape))
    for tiles in ([1, 3], [4, 3], [6, 0], []):
        with pytest.raises(LayoutError, match=r"6 tiles came for \d pictures .* at least one per picture"):
            join_tiles(torch.randn(6, 4, 10), tiles)


def test_an_unknown_kind_of_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(RecipeError, match="layers is 'deep', expected linear or mlp"):
        make(layers="deep")
