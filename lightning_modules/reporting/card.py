"""The model card of a run: what it is, how and on what it was trained, how well it does, its licence and its limits, as README.md.

The card is a report like any other, so its numbers can be verified. It says nothing that the passport, the ledger and the
evaluation do not say.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.composing.licences import Licence, find_licences
from lightning_modules.reporting.groups import group_runs
from lightning_modules.reporting.lineage import draw_lineage
from lightning_modules.reporting.markdown import escape, render_markdown
from lightning_modules.reporting.provenance import list_licences, show_ledgers, summarise_runs
from lightning_modules.reporting.results import show_figures
from lightning_modules.reporting.sources import Reader, find_places
from lightning_modules.reporting.spec import Report, Section, Text

WORLD = "plait.worlds.emoji"
WORLD_LIMIT = (
    "EmojiWorld is 64 x 64 pixels, one style, two objects at most, four relations, English. A score of 1.0 on it says that a pipeline "
    "learns and composes; it does not say that a model is good at images, and the model knows nothing outside that world."
)


def write_card(run: str | Path, place: Path, evaluation: str | Path | None = None) -> Path:
    """Write the card of a run's model.

    Args:
        run: folder of the finished run.
        place: folder of the model; the card is its README.md.
        evaluation: folder of an evaluation of that model.

    Returns:
        The path of the card.

    Raises:
        CheckpointError: there is no run or no evaluation.
    """
    places = find_places([str(run), *([str(evaluation)] if evaluation else [])])
    reader = Reader({one.id: one.folder for one in places})
    trained = [one for one in places if not one.is_evaluation]
    examined = [one for one in places if one.is_evaluation]
    licences = [licence for one in trained for licence in find_licences(reader.run(one.folder).config)]
    passport = reader.run(trained[0].folder).passport
    sections = [
        Section("What it is", (Text(_describe(passport)),)),
        *summarise_runs(reader, places),
        *([show_figures(reader, group_runs(examined))] if examined else []),
        show_ledgers(reader, group_runs(trained)),
        Section("Where the weights come from", (draw_lineage(reader, trained),)),
        list_licences(reader, trained),
        Section("Limits", tuple(Text(limit) for limit in _limits(passport, bool(examined)))),
    ]
    report = Report(passport["config"].get("name", "model"), tuple(sections), {one.id: str(one.folder) for one in places})
    path = place / "README.md"
    path.write_text(f"{_head(licences, passport)}\n{render_markdown(report, place)}", encoding="utf-8")
    return path


def _describe(passport: dict[str, Any]) -> str:
    config = passport["config"]
    tags, name = (escape(word) for word in (", ".join(map(str, config.get("tags", []))), str(config.get("name"))))
    commit = passport["code"]["commit"] or "unknown"
    changes = " with uncommitted changes" if passport["code"].get("is_dirty") else ""
    return (
        f"The model of the recipe {name} ({tags}), trained by {escape(str(passport['stage']))} of plait at commit "
        f"`{commit[:12]}`{changes}. It reads and writes documents in which text and images are interleaved. Read it with "
        "`from lightning_modules.pretrained import from_pretrained`."
    )


def _limits(passport: dict[str, Any], is_examined: bool) -> list[str]:
    limits = [WORLD_LIMIT] if WORLD in json.dumps(passport["config"]) else []
    if not is_examined:
        limits.append("This model was not examined: nothing is known about how well it does. plait-evaluate examines it.")
    return [
        *limits,
        "One run with one seed: another seed may do better or worse than the intervals say, which are over items only.",
    ]


def _head(licences: list[Licence], passport: dict[str, Any]) -> str:
    names = {name for one in licences for name in one.identifiers}
    licence = names.pop() if len(names) == 1 and all(one.identifiers or "yes" in one.weights for one in licences) else "other"
    tags = [str(tag) for tag in passport["config"].get("tags", [])]
    facts = {"license": licence, "library_name": "plait", "pipeline_tag": "any-to-any", "tags": tags}
    # a dumper of YAML, so that a tag with a line break stays a tag
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n"
