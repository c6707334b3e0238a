"""How long the workbench takes to redraw four documents with another sampling setting, and to open the run before.

PLAIT_DEMO=outputs/demo python benchmarks/measure_redraw.py

Four documents, as in notebooks/05_workbench.ipynb: a description, a pair, an edit and a story; every redraw is with a setting that was
not used just before, in rotation.
"""

import os
from pathlib import Path
from typing import Any

from side_by_side import CLOCKS, Median, Report, format_median, read_options

from lightning_modules.workbench import open_run

SETTINGS: dict[str, dict[str, Any]] = {
    "as the run draws": {},
    "guidance 1": {"guidance": 1.0},
    "guidance 4": {"guidance": 4.0},
    "temperature 1": {"temperature": 1.0, "text_temperature": 1.0, "text_top_p": 1.0},
}
MOST_S = 5.0


def main() -> None:
    options = read_options(__doc__)
    clock, run = CLOCKS[options.clock], Path(os.environ.get("PLAIT_DEMO", "outputs/demo"), "instruction")
    report = Report("redraw", "Four documents redrawn with another setting", options)
    began = clock()
    desk = open_run(run)
    assert desk.model.vision_tokenizer is not None, "the model is opened when it is first asked for"
    opened = clock() - began
    documents = [desk.world.source(task, "val")[0] for task in ("two_objects", "edits", "stories")]
    seconds: dict[str, list[float]] = {name: [] for name in ("first of all", *SETTINGS)}
    for number in range(-1, options.rounds):
        order = list(SETTINGS)[number % len(SETTINGS) :] + list(SETTINGS)[: number % len(SETTINGS)]
        for name in order if number >= 0 else order[:1]:
            began = clock()
            drawing = {key: value for key, value in SETTINGS[name].items() if not key.startswith("text_")}
            samples = [*desk.draw("a red car to the left of a green key", **drawing)]
            samples += desk.go_on(documents, max_tokens=48, **SETTINGS[name])
            seconds[name if number >= 0 else "first of all"].append(clock() - began)
            assert len(samples) == 4
    parameters = sum(tensor.numel() for tensor in desk.model.parameters())
    report.text(
        f"The model of `make demo` ({parameters:,} parameters, {desk.model.builder.layout.num_codes} codes per picture), opened in "
        f"{opened:.1f} s (imports not counted). Here nothing is compared: seconds per redraw of all four documents.",
        opened_s=opened,
        seconds=seconds,
    )
    rows = ["| setting | median s [95 % interval] | longest |", "| --- | --- | --- |"]
    rows += [f"| {name} | {format_median(Median.of(values))} | {max(values):.2f} |" for name, values in seconds.items()]
    report.text("\n".join(rows))
    longest = max(max(values) for name, values in seconds.items() if name in SETTINGS)
    report.bar(f"a warm redraw of four documents in at most {MOST_S:g} s; the longest took {longest:.2f} s", longest <= MOST_S)
    report.close()


if __name__ == "__main__":
    main()
