"""Where results come from: the runs and their cost, what was trained and the proof, passports and licences."""

import json
from collections.abc import Iterator, Sequence

from lightning_modules.composing.licences import find_licences
from lightning_modules.reporting.groups import Groups, find_number
from lightning_modules.reporting.sources import METRICS, Place, Reader
from lightning_modules.reporting.spec import Block, Cell, Section, Table, Text

COSTS = {
    "duration_s": "seconds",
    "peak_memory_mib": "peak MiB",
    "tokens": "tokens",
    "images": "images",
    "parameters": "parameters",
    "parameters_trained": "trained",
    "training_flops_by_rule": "FLOPs, 6 N tokens",
}
"""what a run cost -> heading of its column"""
PROOF = ("run", "steps", "frozen tensors", "of them changed", "trained tensors", "of them not moved", "verdict")


def summarise_runs(reader: Reader, places: Sequence[Place]) -> Iterator[Section]:
    """Every run with its state and cost, those too that were stopped before their first step."""
    begun = [place for place in places if place.has_begun]
    costs = [cost for cost in COSTS if any(cost in reader.run(run.folder).cost for run in begun)]
    trained, examined = [], []
    for place in places:
        if place.is_evaluation:
            examined.append((place.label, f"`{place.id}`", find_number(reader, place, "job.json", "duration_s", form=",.0f")))
            continue
        passport = reader.run(place.folder).passport
        steps = find_number(reader, place, "passport.json", "step")
        cost = (find_number(reader, place, METRICS, name, rule="cost", form=_form(name)) for name in costs)
        trained.append((place.label, f"`{place.id}`", passport["stage"], passport["state"], steps, *cost))
    tables = [Table(("run", "id", "stage", "state", "steps", *map(COSTS.get, costs)), tuple(trained))] if trained else []
    tables += [Table(("evaluation", "id", "seconds"), tuple(examined))] if examined else []
    yield Section(
        "The runs and what they cost", tuple(tables), "Every number of this report names the run and the file it was read from."
    )


def show_ledgers(reader: Reader, groups: Groups) -> Section:
    """Per configuration what trained, at which rates, and per run what the tensors say afterwards."""
    blocks: list[Block] = []
    for configuration, places in groups.items():
        run = places[0]
        ledger = reader.run(run.folder).ledger
        rows = tuple(
            (
                row.part,
                "trains" if row.is_trainable else "frozen",
                *(find_number(reader, run, "ledger.json", "rows", str(i), name) for name in ("parameters", "tensors")),
                *(
                    find_number(reader, run, "ledger.json", "rows", str(i), name, form="g")
                    for name in ("learning_rate", "weight_decay")
                ),
                row.optimizer or "",
            )
            for i, row in enumerate(ledger.rows)
        )
        columns = ("part", "state", "parameters", "tensors", "learning rate", "weight decay", "optimizer")
        blocks.append(Table(columns, rows, configuration))
        proven = [run for run in places if reader.run(run.folder).ledger.proof is not None]
        blocks.append(Table(PROOF, tuple(_prove(reader, run) for run in proven)))
    return Section(
        "What was trained, and the proof", tuple(blocks), "Frozen: every bit as before. Trained: every tensor moved."
    )


def _prove(reader: Reader, run: Place) -> tuple[Cell, ...]:
    plain, lists = (("steps",), ("frozen",), ("trainable",)), (("changed_frozen",), ("unmoved_trainable",))
    steps, frozen, trained = (find_number(reader, run, "ledger.json", "proof", *name) for name in plain)
    changed, unmoved = (find_number(reader, run, "ledger.json", "proof", *name, rule="length") for name in lists)
    is_kept = reader.run(run.folder).ledger.proof.is_kept
    return (run.label, steps, frozen, changed, trained, unmoved, "kept" if is_kept else "NOT KEPT")


def show_passports(reader: Reader, groups: Groups) -> Section:
    """Commit, config, seed and machine of every run; packages of the first and the resolved config of each configuration."""
    if not groups:
        return Section("Passport", ())
    blocks: list[Block] = []
    rows = []
    for place in (place for places in groups.values() for place in places):
        passport = reader.run(place.folder).passport
        code, machine = passport["code"], passport["environment"]
        seeds = [find_number(reader, place, "passport.json", "seeds", name) for name in passport["seeds"]]
        commit = f"`{code['commit'] or 'unknown'}`" + (" and changes" if code.get("is_dirty") else "")
        facts = (commit, f"`{passport['config_hash'][:12]}`", passport["started"], machine["device"])
        rows.append((place.label, *seeds[:1], *facts, find_number(reader, place, "passport.json", "environment", "threads")))
    blocks.append(Table(("run", "seed", "commit", "config", "started", "device", "threads"), tuple(rows)))
    first = reader.run(next(iter(groups.values()))[0].folder).passport
    blocks.append(
        Text(json.dumps({"environment": first["environment"], "data": first["data"]}, indent=1), "environment and data")
    )
    for configuration, places in groups.items():
        blocks.append(Text(json.dumps(reader.run(places[0].folder).config, indent=1), f"resolved config: {configuration}"))
    return Section("Passport", tuple(blocks))


def list_licences(reader: Reader, runs: Sequence[Place]) -> Section:
    """The licences of what went into the runs."""
    found = {licence.what: licence for run in runs for licence in find_licences(reader.run(run.folder).config)}
    rows = tuple((one.what, one.licence, one.weights, one.pictures) for one in found.values())
    table = Table(("what went in", "licence", "may weights be published", "may pictures be published"), rows)
    return Section(
        "Licences", (table,) if rows else (), "Our reading of the licences, no legal advice; reports/licences.md has all."
    )


def _form(cost: str) -> str | None:
    return ".3g" if cost.endswith("rule") else ",.0f" if cost.endswith(("_s", "_mib")) else None
