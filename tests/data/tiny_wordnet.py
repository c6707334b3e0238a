"""A WordNet of a few hundred made-up synsets, as the XML of the package and as the archive that holds it."""

import io
import tarfile
from itertools import product
from pathlib import Path
from xml.sax.saxutils import escape

from plait.worlds.wordnet.archive import FILE, MEMBER, VERSION, write_cache
from plait.worlds.wordnet.synsets import Synset

SIZES = ("small", "large", "round", "flat", "heavy", "bright", "hollow", "narrow")
THINGS = ("tool", "animal", "plant", "vessel", "garment", "stone")
PLACES = ("kitchens", "rivers", "deserts", "workshops", "gardens", "mountains", "harbours", "caves")


def make_synsets() -> list[Synset]:
    """Nouns and verbs whose glosses can be told from their words: the word names what the gloss says."""
    synsets = []
    for number, (size, thing, place) in enumerate(product(SIZES, THINGS, PLACES)):
        word = f"{size}{thing} {place}"
        synsets.append(Synset(f"n{number}", "n", (word, f"{thing}{number}"), f"a {size} {thing} that is seen in {place}"))
        if size in SIZES[:4]:
            verb = f"{size}{thing}{place[:3]}ate"
            synsets.append(Synset(f"v{number}", "v", (verb,), f"carry a {size} {thing} out of the {place}"))
    return synsets


def write_xml(synsets: list[Synset]) -> bytes:
    """The synsets in the tags of the package."""
    nodes = []
    for item in synsets:
        words = "".join(f"<LITERAL>{escape(word)}<SENSE>1</SENSE></LITERAL>" for word in item.words)
        nodes.append(
            f"<SYNSET><ID>{item.id}</ID><SYNONYM>{words}</SYNONYM><POS>{item.kind}</POS>"
            f"<SR>n0<TYPE>HYPERNYM</TYPE></SR><DEF>{escape(item.gloss)}</DEF></SYNSET>\n"
        )
    return f"<SYNSETS>\n{''.join(nodes)}</SYNSETS>".encode()


def write_archive(path: Path, xml: bytes, member: str = MEMBER) -> Path:
    """A source archive that holds the XML."""
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"nlptoolkit-wordnet-{VERSION}/WordNet/data/{member}")
        info.size = len(xml)
        tar.addfile(info, io.BytesIO(xml))
    return path


def fill_cache(folder: Path) -> Path:
    """A cache folder (PLAIT_CACHE) in which the made-up WordNet lies."""
    write_cache(folder / FILE, make_synsets())
    return folder
