"""The design decisions of DESIGN section 4 as tests: who may import whom, where each large library may be spoken to, how long a
file may be, and that the list of packages is the tree."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

GROUND = ["document", "axes", "errors", "images", "resizing", "tiling"]  # layer 0
SEAMS = [*GROUND, "records", "protocols"]  # layers 0 and 1
ACTING = ["sequence", "objectives", "sampling", "freezing", "ledger"]  # layer 3
FILES = ["atomic", "flattening"]  # what checkpoints and caches are written with
LAYERS = {
    **{name: ["errors", "axes", "document"] for name in GROUND},
    "images": ["errors", "axes", "jpeg"],
    "jpeg": [],
    "records": GROUND,
    "protocols": [*GROUND, "records"],
    **{name: [*SEAMS, *FILES] for name in ("vision", "backbones", "heads")},
    "decoders": SEAMS,
    "tokenizers": [*SEAMS, *FILES, "decoders.vq"],  # a VQ autoencoder owns its decoder
    **{name: [*SEAMS, *ACTING] for name in ACTING},
    "systems": [*SEAMS, *ACTING, "vision", "tokenizers", "backbones", "heads", "decoders"],
    "data": [*SEAMS, *ACTING, *FILES],
    "evaluation": [*SEAMS, *ACTING, *FILES, "data"],
    "worlds": [*SEAMS, *ACTING, *FILES, "data", "evaluation"],  # a world says what it asks and who judges
    "alignment": [*SEAMS, *ACTING, *FILES, "data", "evaluation", "worlds"],
    "checkpoints": [*SEAMS, *ACTING, *FILES],
    "samples": [*SEAMS, *ACTING, "rendering"],  # a record shows itself in a notebook
    "rendering": [*SEAMS, *ACTING, *FILES, "samples"],
    "adapters": [*SEAMS, *ACTING, *FILES, "checkpoints"],
    "runs": [*SEAMS, *ACTING, *FILES, "checkpoints", "samples"],
    **{name: ["errors"] for name in FILES},
}
"""Part of plait -> what it may import of plait, besides itself."""

ROOMS = [
    "processes",
    "composing",
    "folders",
    "training",
    "tracking",
    "stage",
    "stages",
    "callbacks",
    "reporting",
    "running",
    "pretrained",
    "jobs",
    "loops",
    "desk",
    "commands",
]
"""Rooms of lightning_modules (and files at its top), lowest first: each may import itself and what stands before it."""
FACES = {"workbench": "desk", "notebook": "desk"}
"""files at the top that notebooks import, and the room that they are the door of"""

FENCES = {
    "lightning": ["lightning_modules"],
    "hydra": ["lightning_modules", "hydra_plugins"],
    "wandb": ["lightning_modules/tracking", "lightning_modules/commands/report.py", "lightning_modules/reporting/workspace.py"],
    "wandb_workspaces": ["lightning_modules/reporting/workspace.py"],
    "omegaconf": [
        "hydra_plugins",
        "lightning_modules/pretrained.py",
        *(
            f"lightning_modules/{room}"
            for room in ("composing", "folders", "running", "loops", "tracking/mirroring", "commands")
        ),
    ],
    "transformers": ["plait/backbones", "plait/vision/encoder.py", "plait/tokenizers", "plait/alignment/judges.py"],
    "tokenizers": ["plait/backbones", "plait/tokenizers"],
    "diffusers": ["plait/decoders/diffusion.py"],
    "datasets": ["plait/data"],
    "peft": ["plait/backbones/lora.py"],
}
"""Library -> the files and folders that may import it."""

SOURCES = sorted(
    path for root in ("plait", "lightning_modules", "hydra_plugins", "conf") for path in (ROOT / root).rglob("*.py")
)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, at its top or inside a function."""
    return tuple(_iterate_imports(path))


def _iterate_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import on line {node.lineno}; write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, roots: list[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


@pytest.mark.parametrize("name", [str(p.relative_to(ROOT)) for p in SOURCES if p.is_relative_to(ROOT / "plait")])
def test_layers_of_plait(name: str):
    path = ROOT / name
    if path == ROOT / "plait" / "__init__.py":
        assert not imports(path)
        return
    part = path.relative_to(ROOT / "plait").with_suffix("").parts[0]
    assert part in LAYERS, f"{path.name}: {part!r} has no place in the layers; give it one in LAYERS"
    allowed = [f"plait.{name}" for name in (part, *LAYERS[part])]
    wrong = [name for name in imports(path) if under(name, ["plait", "lightning_modules"]) and not under(name, allowed)]
    assert not wrong, f"plait/{part} may import {LAYERS[part]}, found {wrong}"


@pytest.mark.parametrize("name", [str(p.relative_to(ROOT)) for p in SOURCES if p.is_relative_to(ROOT / "lightning_modules")])
def test_rooms_of_the_application(name: str):
    room = _find_room(name.removeprefix("lightning_modules/").removesuffix(".py").split("/"))
    if room == "__init__":
        return
    assert room in ROOMS, f"{name}: {room!r} has no place among the rooms; give it one in ROOMS"
    found = {_find_room(i.split(".")[1:]) for i in imports(ROOT / name) if under(i, ["lightning_modules"])}
    wrong = found - set(ROOMS[: ROOMS.index(room) + 1])
    assert not wrong, f"{name} imports {wrong}, which stand above {room!r}"


def _find_room(parts: list[str]) -> str:
    return FACES.get(parts[0], parts[0])


def test_the_top_of_the_application_is_small():
    assert len(list((ROOT / "lightning_modules").glob("*.py"))) <= 8


def test_stages_do_not_know_who_runs_them():
    """A stage is handed what it needs: it composes nothing."""
    folders = [ROOT / "lightning_modules" / name for name in ("stages", "callbacks")]
    for path in [ROOT / "lightning_modules/stage.py", *(p for folder in folders for p in folder.rglob("*.py"))]:
        assert not [name for name in imports(path) if under(name, ["lightning_modules.composing"])], (
            f"{path.name} knows its caller"
        )


@pytest.mark.parametrize("library", FENCES)
def test_fences(library: str):
    allowed = [ROOT / place for place in FENCES[library]]
    for path in SOURCES:
        found = [name for name in imports(path) if under(name, [library])]
        assert not found or any(path.is_relative_to(place) for place in allowed), f"{path.relative_to(ROOT)} imports {library}"


def test_no_file_is_too_long():
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long, f"more than 400 lines are two ideas: {long}"


def test_commands_hold_no_logic():
    for path in (ROOT / "lightning_modules" / "commands").glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name


def test_packages_are_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inits = [init for name in ("plait", "lightning_modules", "hydra_plugins") for init in (ROOT / name).rglob("__init__.py")]
    tree = {".".join(init.parent.relative_to(ROOT).parts) for init in inits}
    assert sorted(listed) == sorted(tree | {"plait.conf"})
    missing = {p.parent for p in SOURCES if not (p.parent / "__init__.py").exists()}
    assert not missing, f"folders without __init__.py: {missing}"


def test_no_names_of_a_machine():
    """No absolute path of somebody's machine in what is shipped."""
    texts = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "tests").rglob("*.py"), ROOT / "Makefile", ROOT / "README.md"]
    for path in [*SOURCES, *texts]:
        if path != Path(__file__).resolve():
            text = path.read_text(encoding="utf-8")
            assert not any(f"/{folder}/" in text for folder in ("work", "home", "root")), path
