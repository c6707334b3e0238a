"""What is drawn and said about a comparison is what its table holds."""

from pathlib import Path

import pytest
from PIL import Image

from lightning_modules.jobs.comparison import compare_runs
from lightning_modules.reporting.groups import find_evaluations
from lightning_modules.reporting.verdicts import conclude, draw_table, list_verdicts, stack_sheets
from plait.errors import CheckpointError
from tests.lightning_modules.test_comparison import write

KEY = "val/captions"


@pytest.fixture
def table(tmp_path, monkeypatch) -> dict:
    """good beats bad; even is good with one item changed; twin is good itself; lone has one seed."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        write(f"good/seed-{seed}", [1, 1, 1, 1] * 9 + [0] * 4)
        write(f"bad/seed-{seed}", [0, 0, 0, 1] * 10)
        write(f"even/seed-{seed}", [1, 1, 1, 1] * 9 + [0, 0, 0, seed % 2])
        write(f"twin/seed-{seed}", [1, 1, 1, 1] * 9 + [0] * 4)
    write("lone", [0, 0, 0, 1] * 10)
    rows = {name: [f"{name}/seed-*"] for name in ("good", "bad", "even", "twin")} | {"lone": ["lone"]}
    return compare_runs(rows=rows, folder="out")


def test_points_and_ends_are_those_of_the_table(table):
    (axis,) = draw_table(table).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [KEY]
    drawn = {bar.get_label(): bar for bar in axis.containers}
    assert list(drawn) == list(table["rows"])
    for name, row in table["rows"].items():
        figure, (point, _, (ends,)) = row["figures"][KEY], drawn[name].lines
        assert point.get_xdata().tolist() == [figure["value"]]
        assert ends.get_segments()[0][:, 0].tolist() == pytest.approx([figure["low"], figure["high"]])
    blind = [line for line in axis.lines if line.get_label() == "best blind answer"]
    assert [list(line.get_xdata()) for line in blind] == [[0.25, 0.25]]
    assert [list(line.get_xdata()) for line in axis.lines if line.get_label() == "best lookup"] == [[1.0, 1.0]]


def test_a_column_that_is_no_share_has_a_panel_of_its_own(table):
    table["columns"] = [KEY, "held_out/bits_per_byte"]
    for row in table["rows"].values():
        row["figures"]["held_out/bits_per_byte"] = {**row["figures"][KEY], "value": 2.5, "low": 2.4, "high": 2.6}
    shares, bits = draw_table(table).axes
    assert shares.get_xlim() == (-0.02, 1.02)
    assert bits.get_xlim()[1] > 2.5


def test_sentences_follow_from_the_verdicts(table):
    verdicts = {row["configuration"]: row["verdict"] for row in list_verdicts(table)}
    assert verdicts == {
        "bad": "good",
        "even": "no difference shown",
        "twin": "no difference shown",
        "lone": "no verdict below 3 seeds a row",
    }
    said = conclude(table)
    assert said[0].startswith("3 differences from good were judged together")
    assert any(line.startswith("good is better than bad on val/captions (-0.65 [") for line in said)
    assert "twin and good scored the same on every item of val/captions." in said
    (open_,) = [line for line in said if line.startswith("Between even and good")]
    gap = table["rows"]["even"]["figures"][KEY]["minus_reference"]
    assert f"anything from {gap['low']:+.2f} to {gap['high']:+.2f}" in open_
    (lone,) = [line for line in said if "nobody wins" in line]
    assert lone.startswith("Between lone (1 run) and good (3 runs) nobody wins: a verdict needs 3 seeds a row.")
    assert "val/captions -0.65 [" in lone
    assert any("Seeds are few (3 where" in line for line in said)
    assert not any("could not be asked" in line for line in said)
    table["rows"]["bad"]["skipped"] = {"val/stories": {"prompts": 3, "reason": "too long"}}
    assert any("are in no mean: val/stories." in line for line in conclude(table))


def test_sheets_stand_one_above_the_other(table, tmp_path):
    for color, name in (
        ("red", "good/seed-1"),
        ("blue", "bad/seed-1"),
        ("lime", "even/seed-1"),
        ("teal", "twin/seed-1"),
        ("gold", "lone"),
    ):
        folder = Path(name, "evaluation", "sheets")
        folder.mkdir()
        Image.new("RGB", (200, 50), color).save(folder / "val-captions.png")
    stacked = stack_sheets(table, "val-captions")
    colors = [stacked.getpixel((150, y)) for y in range(stacked.height)]
    seen = list(dict.fromkeys(color for color in colors if color in {(255, 0, 0), (0, 0, 255), (255, 215, 0)}))
    assert seen == [(255, 0, 0), (0, 0, 255), (255, 215, 0)]
    assert colors.count((255, 0, 0)) == 50


def test_seeds_of_a_configuration_are_found_together(tmp_path, monkeypatch, evaluations, tokenizer):
    found = find_evaluations(evaluations)
    assert [len(places) for places in found.values()] == [2]
    with pytest.raises(CheckpointError, match="holds runs and no evaluation"):
        find_evaluations(tokenizer)
