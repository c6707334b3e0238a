"""The lineage of the runs of a report, from their manifests and lineage.json: which weights came from which."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_modules.folders.lineage import LINEAGE_FILE, trace_weights
from lightning_modules.reporting.sources import Place, Reader
from lightning_modules.reporting.spec import Lineage, Link
from plait.errors import CheckpointError


def draw_lineage(reader: Reader, runs: Sequence[Place]) -> Lineage:
    """Every set of weights that the runs made or started from, once, parents first."""
    names, links = {}, {}
    for run in runs:
        for node in _nodes(reader, run):
            # a manifest knows the parents of a node, but not its parents' parents: the richer of two nodes stays
            if node["identity"] not in links or node["parents"]:
                links[node["identity"]] = node
            if node.get("name"):
                names.setdefault(node["identity"], node["name"])
    for run in runs:
        try:
            names[trace_weights(reader.run(run.folder).checkpoint)["identity"]] = run.label
        except CheckpointError:
            continue  # it has made no weights yet
    depths = {identity: _depth(identity, links) for identity in links}
    return Lineage(
        tuple(
            Link(
                names.get(identity, "weights"),
                identity,
                {parent["part"]: parent["identity"] for parent in links[identity]["parents"]},
                " ".join(f"{key} {links[identity][key]}" for key in ("job", "step") if links[identity].get(key) is not None),
            )
            for identity in sorted(links, key=lambda identity: (depths[identity], list(links).index(identity)))
        )
    )


def _nodes(reader: Reader, run: Place) -> Iterator[Mapping[str, Any]]:
    try:
        checkpoint = reader.run(run.folder).checkpoint
    except CheckpointError:
        return
    yield from _flatten(trace_weights(checkpoint))
    if (run.folder / LINEAGE_FILE).is_file():
        yield from (node for node in _flatten(reader.json(run.folder / LINEAGE_FILE)) if node["identity"])


def _flatten(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for parent in node["parents"]:
        yield from _flatten(parent)


def _depth(identity: str, links: Mapping[str, Mapping[str, Any]]) -> int:
    parents = links[identity]["parents"] if identity in links else []
    return 1 + max((_depth(parent["identity"], links) for parent in parents), default=-1)
