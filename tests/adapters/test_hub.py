"""Where a release lies: folders as they are, names of the Hub through its client and never with code or pickles."""

import pytest

from plait.adapters import hub
from plait.errors import CheckpointError


def test_a_folder_is_taken_as_it_is(tmp_path) -> None:
    assert hub.fetch(tmp_path) == tmp_path


def test_a_name_is_fetched_without_code_or_pickles(monkeypatch, tmp_path) -> None:
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.append((name, options)) or str(tmp_path))
    assert hub.fetch("Junfeng5/Liquid_V1_7B", revision="main") == tmp_path
    assert asked == [
        ("Junfeng5/Liquid_V1_7B", {"revision": "main", "allow_patterns": ["*.safetensors", "*.json", "*.jinja"]}),
    ]


@pytest.mark.parametrize("source", ["nowhere", "../up/there", "a/b/c", "/a/b"])
def test_what_is_neither_is_refused_before_asking(source) -> None:
    with pytest.raises(CheckpointError, match="no folder and no name of the Hub"):
        hub.fetch(source)


def test_without_a_network_the_message_says_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r"someone/something is no folder here, and the Hub did not give it.*Next:"):
        hub.fetch("someone/something")
