"""The common table: the same numbers as Markdown and as records, with protocol, skips and seconds."""

from plait.evaluation.table import FIELDS, list_records, tabulate_run, write_markdown

FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30, "baselines": {"majority": 0.25, "slot_lookup": 1.0}, "policy": "cold"}
FIGURE |= {"gap_from": "majority", "gap_closed": 1 / 3, "lookup": "slot_lookup", "exceeds_lookup": False}
FACTS = {
    "protocol": {"sampler_image": "cold", "guidance": [], "n": 30},
    "headlines": ["val/captions", "val/instructions_english"],
    "skipped": {
        "val/instructions_english": {"prompts": 12, "reason": "Unknown word 'word' | next"},
        "val/edits": {"prompts": 30, "reason": "no pictures"},
        "val/vqa": {"prompts": 30, "reason": "no pictures"},
    },
    "durations_s": {"val/captions": 1.25, "val/instructions": 0.5},
}


def test_one_run_is_a_table_with_every_column_even_where_nothing_could_be_asked():
    table = tabulate_run("mine", {"val/captions": FIGURE, "val/captions_objects": FIGURE}, FACTS)
    text = "\n".join(write_markdown(table))
    assert "0.50 [0.40, 0.60] | 0.33 | majority 0.25 | slot_lookup 1.00 | majority 0.25, slot_lookup 1.00 |" in text
    assert "| val/instructions_english | 0 |  |  |  |  |  |" in text
    assert "| mine | val/instructions_english | 12 | Unknown word 'word' / next |" in text
    assert "| mine | val/edits, val/vqa | 30 | no pictures |" in text  # one line per reason
    assert "| mine | 1 | cold | [] | 30 |" in text
    assert "| in all | 1.8 |" in text
    assert "captions_objects" not in text  # in table.json only


def test_records_hold_the_protocol_and_the_verdict():
    table = tabulate_run("mine", {"val/captions": FIGURE}, FACTS)
    gap = {"value": 0.1, "low": 0.02, "high": 0.2, "p_value": 0.01, "p_adjusted": 0.02, "verdict": "mine"}
    other = {**table["rows"]["mine"], "figures": {"val/captions": FIGURE}}
    table["rows"]["mine"]["figures"] = {"val/captions": {**FIGURE, "minus_reference": gap}}
    table = {**table, "reference": "other", "rows": {**table["rows"], "other": other}}
    fields, records = list_records(table)
    assert fields == [*FIELDS, "protocol/sampler_image", "protocol/guidance", "protocol/n"]
    assert [dict(zip(fields, record, strict=True))["verdict"] for record in records] == ["mine", ""]
    assert dict(zip(fields, records[0], strict=True))["protocol/guidance"] == "[]"
    text = "\n".join(write_markdown(table))
    assert "| val/captions | +0.10 [+0.02, +0.20] mine |" in text
    assert "| 0.33 / 0.33 | majority 0.25 |" in text
