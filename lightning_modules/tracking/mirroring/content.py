"""What W&B shows of files of a run folder: pages and tables of samples, figures of an evaluation, sheets, artifacts. It does not decide
when, and imports nothing that takes time but wandb."""

import base64
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_modules.tracking.mirroring.facts import mask
from lightning_modules.tracking.mirroring.record import METRICS_FILE, SAMPLE_TABLE_KEY, SAMPLES_KEY, read_json
from plait.atomic import write_json
from plait.evaluation.table import list_records

MADE = "made by the model"
LONGEST_SIDE = 96
"""of a thumbnail, in pixels"""
RECORD = ("config.yaml", "passport.json", "ledger.json", "lineage.json", METRICS_FILE, "samples", "text_tokenizer")
"""what of a run folder W&B is given, enough to open the run elsewhere (`lightning_modules.tracking.mirroring.fetch`)"""
MASKED = ("config.yaml", "passport.json", "lineage.json")
"""files of it that are given without secrets, and without the uncommitted changes of the code"""
MANIFEST, WEIGHTS = "manifest.json", "model.safetensors"
SAMPLE_COLUMNS = ("step", "id", "title", "seed", "prompt", "answer", "thumbnail")


def show_page(page: Path, step: int) -> dict[str, Any]:
    """A page of samples, and its samples as a table; both under the same keys at every step."""
    return {SAMPLES_KEY: show_html(page), SAMPLE_TABLE_KEY: tabulate_samples([page.with_suffix(".json")], step)}


def show_html(page: Path) -> Any:
    """A page as it is on disk."""
    import wandb

    return wandb.Html(page.read_text(encoding="utf-8"), inject=False)


def tabulate_samples(files: Sequence[Path], step: int | None = None) -> Any:
    """A W&B table with a row per stored sample: its prompt, answer, thumbnail and scores. Seeds are strings: W&B rounds above 2^53."""
    import wandb

    samples = [(path.stem, item) for path in files for item in _read_list(path)]
    scores = sorted({name for _, item in samples for name in item.get("scores", {})})
    rows = []
    for title, item in samples:
        seed = item.get("seed")
        prompt, answer, picture = read_sample(item)
        facts = [step, item["document"].get("id"), item.get("title") or title, None if seed is None else str(seed)]
        shown = None if picture is None else wandb.Image(picture)
        rows.append([*facts, prompt, answer, shown, *(_plain(item.get("scores", {}).get(name)) for name in scores)])
    columns = [*SAMPLE_COLUMNS, *(name if name not in SAMPLE_COLUMNS else f"{name} " for name in scores)]
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)


def read_sample(item: Mapping[str, Any]) -> tuple[str, str, Image.Image | None]:
    """(what was given, what the model wrote, a small picture) of a stored sample: the last one drawn, or else given."""
    spans = item.get("spans")
    if spans is None:  # a record from before spans were stored: without pictures
        given = item.get("given")
        spans = [
            {"kind": "text", "text": span.get("text", ""), "by": MADE if given is not None and index >= given else None}
            for index, span in enumerate(item["document"].get("spans", ()))
        ]
    texts = [(span.get("by") == MADE, span.get("text") or "") for span in spans if span.get("kind") == "text"]
    pictures = [(span.get("by") == MADE, span["picture"]) for span in spans if span.get("picture")]
    chosen = [uri for is_made, uri in pictures if is_made] or [uri for _, uri in pictures]
    prompt, answer = (" ".join(text for is_made, text in texts if is_made == wanted and text) for wanted in (False, True))
    return prompt, answer, _open_thumbnail(chosen[-1]) if chosen else None


def read_figures(folder: Path) -> dict[str, Any]:
    """Figures of an evaluation as scalars: "test/captions", and "test/captions/low", "/high", "/n" and baselines beside it."""
    found = read_json(folder / "summary.json")
    return {key.replace(".", "/"): value for key, value in found.items() if isinstance(value, int | float | str)}


def show_evaluation(folder: Path) -> dict[str, Any]:
    """Everything that an evaluation (or a comparison) left: its table, its samples as pages and one table, its sheets."""
    import wandb

    shown: dict[str, Any] = {}
    table = read_json(folder / "table.json")
    if table:
        columns, rows = list_records(table)
        shown["table"] = wandb.Table(columns=columns, data=[list(map(_plain, row)) for row in rows], allow_mixed_types=True)
    pages = [page for page in sorted((folder / "samples").glob("*.html")) if not page.stem.startswith("step-")]
    shown |= {f"{SAMPLES_KEY}/{page.stem}": show_html(page) for page in pages}
    if pages:
        shown[SAMPLE_TABLE_KEY] = tabulate_samples([page.with_suffix(".json") for page in pages])
    sheets = sorted((folder / "sheets").glob("*.png"))
    return shown | {f"sheets/{sheet.stem}": wandb.Image(str(sheet)) for sheet in sheets if not sheet.is_symlink()}


def make_artifacts(folder: Path, facts: Mapping[str, Any]) -> Iterator[Any]:
    """What is handed over of a run folder: its record and, where it made weights, their manifest (and with `has_weights` themselves). What
    may hold secrets, or changes of the code that nobody has committed, is handed over as a copy without them."""
    import wandb

    copies = Path(os.environ.get("WANDB_DATA_DIR") or folder / "wandb" / "staging") / "record"
    record = wandb.Artifact(f"record-{facts['id']}", type="record")
    for name in RECORD:
        path = folder / name
        if path.name in MASKED and path.is_file():
            _add(record, _copy_masked(path, copies), name)
        elif path.is_file():
            _add(record, path, name)
        for file in sorted(path.rglob("*")) if path.is_dir() else ():
            if file.is_file() and not file.is_symlink():
                _add(record, file, str(file.relative_to(folder)))
    if record.manifest.entries:
        yield record
    checkpoint = folder / "checkpoints" / "last.ckpt"
    manifest = read_json(checkpoint / MANIFEST)
    if identity := manifest.get("hashes", {}).get(WEIGHTS):
        told = {"identity": identity, "step": manifest.get("step"), "model": manifest.get("model")}
        told["parents"] = {part: parent["identity"] for part, parent in facts["config"].get("parents", {}).items()}
        weights = wandb.Artifact(name_artifact(identity), type="weights", metadata=told)
        _add(weights, _copy_masked(checkpoint / MANIFEST, copies), MANIFEST)
        if facts["has_weights"]:
            _add(weights, checkpoint / WEIGHTS, WEIGHTS)
        yield weights


def _add(artifact: Any, path: Path, name: str) -> None:
    artifact.add_file(str(path.absolute()), name=name, policy="immutable", skip_cache=True)


def _copy_masked(path: Path, place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".json":
        (place / path.name).write_text(mask(path.read_text(encoding="utf-8")), encoding="utf-8")
        return place / path.name
    known = mask(json.loads(path.read_text(encoding="utf-8")))
    if isinstance(known.get("code"), dict):
        known["code"].pop("diff", None)
    write_json(place / path.name, known)
    return place / path.name


def name_artifact(identity: str) -> str:
    """The name under which W&B has the weights of an identity."""
    return f"weights-{identity[:16]}"


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [item for item in found if isinstance(item, dict) and isinstance(item.get("document"), dict)]


def _open_thumbnail(uri: str) -> Image.Image | None:
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    except (OSError, ValueError):
        return None
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)
