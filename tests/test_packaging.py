"""What is shipped: wheel and sdist are built from the tree, installed into a clean environment, and used from elsewhere."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONF = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml"))
SHIPPED = ["pyproject.toml", "README.md", "LICENSE", "NOTICE", "conf", "plait", "lightning_modules", "hydra_plugins"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PLAIT_", "PIP_"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env={**clean, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel that is built *from the sdist*, of a copy of the tree (a build leaves traces)."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in SHIPPED:
        run("cp", "-r", ROOT / name, copy / name, cwd=ROOT)
    # without isolation: the build tools of this environment, no network
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    return {"sdist": next(out.glob("*.tar.gz")), "wheel": next(out.glob("*.whl"))}


def test_wheel_and_sdist_hold_the_whole_tree(archives):
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        names = set(wheel.namelist())
    assert {f"plait/{name}" for name in CONF} <= names
    sources = [path for root in ("plait", "lightning_modules", "hydra_plugins") for path in (ROOT / root).rglob("*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in sources}
    assert modules <= names
    assert not [name for name in names if name.startswith(("tests", "outputs", "notebooks", "conf/"))]
    assert any(name.endswith("licenses/NOTICE") for name in names)
    with tarfile.open(archives["sdist"]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert modules | set(CONF) <= inside


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_into_a_clean_environment_and_used_from_elsewhere(kind, archives, tmp_path):
    """The dependencies are lent by this environment (a path file), plait is not: it comes from the archive."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    own = run(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-index", archives[kind]),
        cwd=tmp_path,
        PYTHONPATH=own,
    )
    # added after ours, and its own .pth files (an editable plait) are not read
    (site / "lent.pth").write_text(own + "\n")
    where = run(python, "-c", "import plait, plait.conf; print(plait.__file__); print(plait.conf.__file__)", cwd=tmp_path)
    assert all(Path(line).is_relative_to(site) for line in where.split())
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "mine" / "experiment").mkdir(parents=True)
    private = "# @package _global_\ndefaults:\n  - liquid/pretraining\n\nname: private\n"
    (elsewhere / "mine" / "experiment" / "private.yaml").write_text(private)
    command = [tmp_path / "venv" / "bin" / "plait-train", "--config-dir", "mine", "experiment=private", "--cfg", "job"]
    printed = run(*command, cwd=elsewhere)
    assert "name: private" in printed
    assert "_target_: plait.systems.liquid.build" in printed
    plugins = run(command[0], "--info", "plugins", cwd=elsewhere)
    assert "GpuLauncher" in plugins
