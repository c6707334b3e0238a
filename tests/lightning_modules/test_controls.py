"""The knobs call the verb of the desk with what they stand at; without ipywidgets the call is made all the same."""

import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from lightning_modules.desk.controls import MISSING, Controls
from plait.errors import VocabularyError
from plait.sampling.policies import SamplingPolicy


class StubDesk:
    """Remembers what it was asked to draw."""

    policies = {"image": SamplingPolicy(guidance=9.0, temperature=0.5)}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked = []

    def draw(self, prompt, **settings):
        self.asked.append((prompt, settings))
        if "zyzzyva" in prompt:
            raise VocabularyError("Unknown word 'zyzzyva' <b>")
        return [SimpleNamespace(seed=0, pictures=[Image.new("RGB", (8, 8))])]


@pytest.fixture
def controls(monkeypatch):
    controls = Controls(StubDesk(), "a red car", num_samples=2)
    controls.shown = []
    monkeypatch.setattr("lightning_modules.desk.controls.Screen", lambda: SimpleNamespace(show=controls.shown.append))
    controls.screen = SimpleNamespace(show=controls.shown.append)
    return controls


def test_the_button_draws_with_what_the_knobs_stand_at(controls):
    prompt, guidance, temperature, seed, button = controls.widgets().children
    assert (prompt.value, guidance.value, temperature.value, seed.value) == ("a red car", 9.0, 0.5, 0)
    prompt.value, guidance.value, seed.value = "a blue key", 2.5, 7
    button.click()
    assert controls.desk.asked == [("a blue key", {"guidance": 2.5, "temperature": 0.5, "seed": 7, "num_samples": 2})]
    assert "prompt a blue key, guidance 2.5, temperature 0.5, seed 7" in controls.shown[0]
    assert "<img" in controls.shown[0]


def test_a_refusal_is_shown_in_its_own_words(controls):
    controls.show(prompt="a zyzzyva")
    assert "Unknown word &#x27;zyzzyva&#x27; &lt;b&gt;" in controls.shown[0]


def test_without_widgets_the_same_call_is_made_and_the_next_step_is_said(controls, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    controls._ipython_display_()
    assert MISSING in capsys.readouterr().out
    assert controls.desk.asked == [("a red car", {"guidance": 9.0, "temperature": 0.5, "seed": 0, "num_samples": 2})]
    assert len(controls.draw(guidance=1.0)) == 1
    assert controls.desk.asked[1] == ("a red car", {"guidance": 1.0, "temperature": None, "seed": 0, "num_samples": 2})
