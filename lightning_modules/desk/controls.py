"""Knobs beside a desk in a notebook: a prompt, guidance, temperature and seed, and what the model draws with them.

Without ipywidgets the same call is made once, and a sentence says how to make it again.
"""

from html import escape
from typing import Any

from lightning_modules.desk.answers import Answers
from lightning_modules.tracking.screen import Screen
from plait.errors import PlaitError
from plait.rendering import Cell, contact_sheet
from plait.samples import inline_picture

MISSING = (
    "ipywidgets is not installed, so there are no knobs. Next: pip install ipywidgets, or call "
    "controls.draw(prompt=..., guidance=..., temperature=..., seed=...)."
)


class Controls:
    """Draws a prompt with settings that are chosen by hand. Shown in a cell it is a row of knobs.

    Args:
        desk: see `lightning_modules.workbench.Desk`.
        prompt: what is asked for at first.
        num_samples: drawn at a time, with seeds that follow each other.
    """

    def __init__(self, desk: Any, prompt: str, num_samples: int = 4) -> None:
        self.desk, self.prompt, self.num_samples = desk, prompt, num_samples
        self.screen = Screen()

    def draw(
        self, prompt: str | None = None, guidance: float | None = None, temperature: float | None = None, seed: int = 0
    ) -> Answers:
        """What the button does; what is not given is as the run has it.

        Raises:
            PlaitError: see `Desk.draw`.
        """
        prompt = self.prompt if prompt is None else prompt
        return self.desk.draw(prompt, guidance=guidance, temperature=temperature, seed=seed, num_samples=self.num_samples)

    def show(self, **settings: Any) -> None:
        """Draw and put it in the place of what was shown before; a refusal is shown in its own words."""
        try:
            answers = self.draw(**settings)
        except PlaitError as error:
            self.screen.show(f"<p style='color: #c2372e'>{escape(str(error))}</p>")
            return
        said = ", ".join(f"{name} {value}" for name, value in settings.items())
        cells = [Cell(picture, f"seed {answer.seed}") for answer in answers for picture in answer.pictures]
        self.screen.show(f"<img alt='{escape(said, quote=True)}' src='{inline_picture(contact_sheet(cells, title=said))}'>")

    def widgets(self) -> Any:
        """The knobs, as ipywidgets, which call `show`.

        Raises:
            ImportError: ipywidgets is not installed.
        """
        import ipywidgets

        policy, wide = self.desk.policies["image"], {"description_width": "90px"}
        knobs = {
            "prompt": ipywidgets.Text(self.prompt, description="prompt", layout={"width": "480px"}, style=wide),
            "guidance": ipywidgets.FloatSlider(
                policy.guidance, min=1, max=max(7, policy.guidance), step=0.5, description="guidance", style=wide
            ),
            "temperature": ipywidgets.FloatSlider(
                policy.temperature, min=0, max=max(1.5, policy.temperature), step=0.1, description="temperature", style=wide
            ),
            "seed": ipywidgets.BoundedIntText(0, min=0, max=2**31, description="seed", style=wide),
        }
        button = ipywidgets.Button(description="draw", button_style="primary")
        button.on_click(lambda _: self.show(**{name: knob.value for name, knob in knobs.items()}))
        return ipywidgets.VBox([*knobs.values(), button])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self.screen = Screen()  # a place below these knobs
        try:
            display(self.widgets())
        except ImportError:
            print(MISSING)
        self.show(guidance=self.desk.policies["image"].guidance, temperature=self.desk.policies["image"].temperature, seed=0)
