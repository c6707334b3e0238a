"""What README.md and CONTRIBUTING.md tell people to type exists and composes; what they point to is there. Nothing is trained."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from lightning_modules.desk.requests import read_request
from lightning_modules.loops.curriculum import compose_job
from plait.document import Document
from plait.errors import DocumentError

ROOT = Path(__file__).resolve().parents[1]
README, CONTRIBUTING = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


COMMANDS = [line.split(" #")[0].strip() for block in blocks(README, "bash") for line in block.splitlines()]
PLAIT = [command for command in COMMANDS if command.startswith("plait-")]
SIZES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "conf" / "sizes").glob("*_paper.yaml"))
PAPER = [command.partition("plait-train ")[2] for command in PLAIT if "scale=paper" in command]
PAPER += re.findall(r"^# Command: torchrun .* -m lightning_modules\.commands\.train (.*)$", SIZES, flags=re.M)
OWN = [command for command in PLAIT if "--config-dir" in command]


def test_every_command_is_one_that_plait_installs():
    named = {command.split()[0] for command in PLAIT} | set(re.findall(r"`(plait-[a-z]+)", README + CONTRIBUTING))
    assert named == set(SCRIPTS), "the README shows other commands than pyproject.toml installs"
    for target in SCRIPTS.values():
        module, _, function = target.partition(":")
        assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [command for command in PLAIT if command not in OWN])
def test_every_command_composes(command: str):
    script, *words = shlex.split(command)
    flags = {"-m"} & set(words)
    overrides = [word for word in words if word not in flags]
    # each job of a sweep gets the first of its values
    single = [re.sub(r"^([\w.]+=[^\[,]+),.*", r"\1", word) if flags else word for word in overrides]
    assert not flags or single != overrides, "a sweep without a list of values"
    config = compose_job(script.removeprefix("plait-"), single)
    assert "job" in config


def test_commands_at_paper_size_are_shown():
    assert {command.partition("/")[0] for command in PAPER} == {"experiment=liquid", "experiment=synergen_vl"}


@pytest.mark.parametrize("command", PAPER)
def test_a_command_at_paper_size_asks_for_the_machine_that_it_needs(command: str):
    """On GPUs, in bf16, layers computed again in the backward pass, and as many micro-batches as fill the devices that it speaks of."""
    config = compose_job("train", shlex.split(command))
    assert (config.trainer.accelerator, config.trainer.precision) == ("gpu", "bf16-mixed")
    assert config.backbone.gradient_checkpointing
    devices = 8 if "trainer=ddp" in command else 1
    rows_of_a_device = {"synergen_vl": 995, "liquid": 512}[config.tags[0]] / devices
    assert 1 <= rows_of_a_device / config.trainer.accumulate_grad_batches <= 4
    assert config.batches.batches_per_window == config.trainer.accumulate_grad_batches


def test_an_experiment_of_your_own_composes_as_shown(tmp_path: Path):
    (yaml,) = blocks(README, "yaml")
    place = re.search(r"^# (\S+\.yaml)$", yaml, flags=re.M)[1]
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(yaml, encoding="utf-8")
    (command,) = OWN
    script, *words = shlex.split(command)
    module = SCRIPTS[script].partition(":")[0]
    done = subprocess.run(
        [sys.executable, "-m", module, *words, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in ("name: wide", "hidden_size: 384", "caption_dropout: 0.2", "muon_lr: 0.006"):
        assert line in done.stdout, f"{line!r} did not reach the config: something later in the defaults wins"


def test_the_document_shown_is_a_document(tmp_path: Path):
    (shown,) = blocks(README, "json")
    (tmp_path / "mine.json").write_text(shown, encoding="utf-8")
    given, drawn = Document.from_json(json.loads(shown)).images
    assert (given.is_hole, drawn.is_hole) == (False, True)
    for image in (given, drawn):
        assert f'"image_id": "{image.image_id}"' in shown
    Image.new("RGB", (8, 8)).save(tmp_path / given.image_id)
    request = read_request(document=str(tmp_path / "mine.json"))
    assert (request.kind, request.document) == ("story", Document.from_json(json.loads(shown)))
    Image.new("RGB", (8, 8)).save(tmp_path / drawn.image_id, format="PNG")
    with pytest.raises(
        DocumentError, match=f"to be drawn is called '{drawn.image_id}', and there is such a picture.*Next: leave out its"
    ):
        read_request(document=str(tmp_path / "mine.json"))


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    named = set(re.findall(r"^(?:\w+=\S+ )?make ([a-z]+)", "\n".join([*COMMANDS, *blocks(CONTRIBUTING, "bash")]), flags=re.M))
    named |= set(re.findall(r"`make ([a-z]+)", README + CONTRIBUTING))
    assert {"demo", "test", "lab", "install", "lint"} <= named <= targets


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_link_and_path_leads_somewhere(text: str):
    links = [link for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text) if not link.startswith("http")]
    tree = re.findall(r"^([a-z_]+/) ", text, flags=re.M)
    paths = re.findall(r"`((?:plait|lightning_modules|conf|tests|notebooks)/[\w./]*)`", text)
    # what is to come (DESIGN): places that the fences already name
    gone = {name for name in [*links, *tree, *paths] if not (ROOT / name).exists()} - {"outputs/", "plait/vision/"}
    assert not gone, f"not in the tree: {sorted(gone)}"


def test_the_picture_of_real_output_is_there():
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).is_file(), f"README.md shows {picture}: make it from the sheets of a finished `make demo`"


def test_experiments_and_classes_of_the_table_exist():
    rows = [row.split("|")[1:-1] for row in README.splitlines() if row.startswith(("| Liquid", "| SynerGen"))]
    assert len(rows) == 3 + 4
    for _, name, experiment, _ in rows:
        config = compose_job("train", [f"experiment={experiment.strip(' `')}"])
        assert config.stage._target_.rpartition(".")[2] == name.strip(" `")
    # honest: what is not built is not in the table as if it were
    built = {path.parent.name for path in (ROOT / "conf" / "experiment").glob("*/*.yaml")}
    missing = [row for row in README.splitlines() if "| to come | to come |" in row]
    assert len(missing) == 3
    assert not [row for row in missing if row.split()[1].strip(":").lower().replace("-", "_") in built]
