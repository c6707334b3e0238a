"""What stands in a report about runs, and in which order.

What it looks like and a verdict; more pictures; what the models can do; how training went and where it ended; what was trained, and the
proof; where it comes from; what it cost.
"""

from collections.abc import Sequence

from lightning_modules.reporting.groups import group_runs, split_stages
from lightning_modules.reporting.lineage import draw_lineage
from lightning_modules.reporting.opening import Expected, open_report
from lightning_modules.reporting.provenance import list_licences, show_ledgers, show_passports, summarise_runs
from lightning_modules.reporting.results import show_curves, show_figures, show_final_values, show_pictures
from lightning_modules.reporting.sources import Reader, find_places, find_tracked
from lightning_modules.reporting.spec import Report, Section


def describe_runs(folders: Sequence[str], title: str = "report", expected: Expected | None = None) -> Report:
    """The report of runs and evaluations.

    Args:
        folders: runs, evaluations, and folders that hold them (a multirun, a curriculum, a study).
        expected: see `open_report`.

    Raises:
        CheckpointError: see `find_places`; or a file of a run is damaged.
    """
    places = find_places(folders)
    reader = Reader({place.id: place.folder for place in places})
    evaluations = [place for place in places if place.is_evaluation]
    # a run that was stopped before its first step has nothing to show: it is in the table of runs only
    runs = [place for place in places if place.has_begun]
    sections = [
        open_report(reader, runs, group_runs(evaluations), expected),
        show_pictures(reader, runs, group_runs(evaluations)),
    ]
    if evaluations:
        sections.append(show_figures(reader, group_runs(evaluations)))
    sections += [show_curves(reader, stage, found) for stage, found in split_stages(reader, runs).items()]
    sections += [show_final_values(reader, runs), show_ledgers(reader, group_runs(runs))]
    sections += [Section("Where the weights come from", (draw_lineage(reader, runs),)), *summarise_runs(reader, places)]
    sections += [show_passports(reader, group_runs(runs)), list_licences(reader, runs)]
    tracked = {place.id: find_tracked(place.folder) for place in places}
    return Report(
        title,
        tuple(section for section in sections if section.blocks),
        {place.id: str(place.folder) for place in places},
        tracked,
        {place.id: place.configuration for place in places},
    )
