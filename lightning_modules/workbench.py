"""A run on the desk: opened from disk or W&B, its model asked, trained further and compared. The one way in for notebooks.

    desk = open_run("outputs/demo/instruction")        # also "outputs/mine" (exported), or "entity/project/run" of W&B
    desk.draw("a red car", guidance=2.0, seed=1)       # -> Answers: shows itself, has .pictures, .text, .texts; each answer has them too
    desk.draw(["a red car", "a blue key"], num_samples=4, temperature=0.7)
    desk.ask("mine.png", "what is on the left ?")
    desk.caption("mine.png")
    desk.edit("mine.png", "the car turns blue .")
    desk.tell("here is a red car .", max_images=3, text_temperature=0.5)
    desk.tell(["here is a red car .", "mine.png", "the car turns blue ."])
    desk.chat([{"role": "user", "content": [{"type": "image", "image": "mine.png"}, {"type": "text", "text": "what is it ?"}]}])
    desk.go_on([desk.world.source("edits", "val")[0]])  # documents of the data, up to what is to be learned from them
    desk.train_further(20, overrides=["stage.optimizer.lr=1e-3"])  # -> the desk of the new run
    desk.compare(open_run("outputs/other/instruction"))            # -> Comparison: shows itself, has .table, .verdicts, .sentences
    Comparison.below("outputs/sketches")               # all configurations of a multirun, seeds together
    desk.figures, desk.metrics, desk.samples, desk.config, desk.ledger, desk.passport, desk.cost, desk.folder, desk.is_complete
    desk.curves("train/text_loss_nats", "train/image_loss_nats")
    desk.controls("a red car")                         # knobs for prompt, guidance, temperature and seed
    desk.model, desk.world, desk.policies

A picture is the path of a file, a PIL picture, an array of uint8, or the id of a picture of the world. Settings of sampling are those of
`plait.sampling.policies.SamplingPolicy` by name; see `lightning_modules.desk.asking.Asker`, which `plait-generate` asks through, too.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.composing.recipes import is_saved_model
from lightning_modules.desk.answers import Answers
from lightning_modules.desk.asking import Asker
from lightning_modules.desk.comparing import Comparison
from lightning_modules.desk.controls import Controls
from lightning_modules.desk.project import find_project, find_upward
from lightning_modules.desk.shelf import Source
from lightning_modules.jobs.comparison import find_evaluation
from lightning_modules.loops import further
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.running.device import choose_device, place_parts
from lightning_modules.running.launch import adopt_run, load_bases
from lightning_modules.tracking.mirroring.fetch import fetch_run
from lightning_modules.tracking.screen import draw_curves
from plait.document import Document
from plait.errors import CheckpointError, RecipeError
from plait.protocols import Policy, World
from plait.runs import Run

WANDB_PATH = re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+")
log = logging.getLogger(__name__)


def open_run(place: str | Path, fetched: str | Path | None = None, *, device: str = "auto", dtype: str = "auto") -> "Desk":
    """A run by its folder, or by its path in W&B; it may still go on. A saved model (`plait-export`) opens too, as far as it goes.

    Args:
        place: a folder here or, from a notebook, in a folder above up to the project; entity/project/run; or
            entity/project/artifact:version.
        fetched: where runs from W&B are put; by default outputs/wandb of the project.
        device, dtype: of its model, as in `lightning_modules.pretrained.from_pretrained`.

    Raises:
        CheckpointError: there is no run.
        RecipeError: there is no such device.
    """
    choose_device(device)
    found = find_upward(place)
    if found is not None and found.is_dir():
        return Desk(found, device, dtype)
    # a path that begins in a folder of this machine was meant as one
    if not WANDB_PATH.fullmatch(str(place)) or find_upward(str(place).partition("/")[0]):
        raise CheckpointError(
            f"{place} is no folder here and no path of W&B. Expected the folder of a run, entity/project/run, or "
            "entity/project/artifact:version. Next: check the path."
        )
    folder = fetch_run(str(place), find_project() / "outputs" / "wandb" if fetched is None else fetched)
    return Desk(folder, device, dtype)


class Desk(Run):
    """A run (`plait.runs.Run`) whose model can be asked. The model is opened when something is first asked of it.

    Args:
        folder: of a training run, or of a saved model, which has a model and no records.
        device, dtype: see `open_run`.

    Raises:
        CheckpointError: the folder holds no run.
    """

    def __init__(self, folder: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        self._device, self._dtype = device, dtype
        if is_saved_model(folder):
            self.folder = Path(folder)
        else:
            super().__init__(folder)

    def draw(self, prompts: str | Sequence[str], *, seed: int = 0, num_samples: int = 1, **settings: Any) -> Answers:
        """Draw descriptions; `settings`: guidance, temperature, top_k, top_p.

        Raises:
            RecipeError: the run holds no model or has not finished, or the policy has no such setting.
            VocabularyError: a word that the model does not know. (So do the verbs below.)
        """
        return self._asker.draw(prompts, seed=seed, num_samples=num_samples, **settings)

    def ask(self, image: Source, question: str | Sequence[str], **how: Any) -> Answers:
        """Ask about a picture; `how`: seed, num_samples, max_tokens, and settings of the policy of answers."""
        return self._asker.ask(image, question, **how)

    def caption(self, image: Source, **how: Any) -> Answers:
        """Ask for the caption of a picture; `how` as in `ask`."""
        return self._asker.caption(image, **how)

    def edit(self, image: Source, instruction: str | Sequence[str], **how: Any) -> Answers:
        """Have a picture changed; `how` as in `draw`."""
        return self._asker.edit(image, instruction, **how)

    def tell(self, beginning: str | Document | Sequence[Source], *, max_images: int = 2, **how: Any) -> Answers:
        """Go on with a story; `how`: seed, num_samples, max_tokens, settings of the pictures (guidance, temperature, ...) and of the words
        (text_temperature, ...)."""
        return self._asker.tell(beginning, max_images=max_images, **how)

    def chat(self, messages: Sequence[Mapping[str, Any]], **how: Any) -> Answers:
        """Answer the last message of a dialogue; `how` as in `tell`, and max_images."""
        return self._asker.chat(messages, **how)

    def go_on(self, documents: Sequence[Document], **how: Any) -> Answers:
        """Complete documents of the run's data, each given up to what is to be learned from it; `how` as in `chat`."""
        return self._asker.go_on(documents, **how)

    def train_further(
        self,
        steps: int,
        folder: str | Path | None = None,
        *,
        overrides: Sequence[str] = (),
        callbacks: Mapping[str, Any] | None = None,
    ) -> "Desk":
        """Train the model `steps` optimiser steps further, in this process, as a run of its own (`lightning_modules.loops.further`).

        Args:
            folder: of the new run; by default `further` beside this one.

        Returns:
            The desk of the new run.

        Raises:
            RecipeError: the run has no recipe or has not finished, or an override names no key.
            KeyboardInterrupt: it was stopped; the same call goes on.
        """
        place = self.folder.with_name(f"{self.folder.name}-further") if folder is None else Path(folder)
        run = further.train_further(self.folder, steps, place, overrides=overrides, callbacks=callbacks)
        return Desk(run.folder, self._device, self._dtype)

    def compare(self, *others: "Run | str | Path") -> Comparison:
        """The evaluation of this run beside those of others, each a row.

        Raises:
            CheckpointError: one of them has no evaluation; with the command that makes it.
        """
        return Comparison.of_runs([self, *(other if isinstance(other, Run) else open_run(other) for other in others)])

    def controls(self, prompt: str, num_samples: int = 4) -> Controls:
        """Knobs for prompt, guidance, temperature and seed, to be shown in a cell."""
        return Controls(self, prompt, num_samples)

    @property
    def figures(self) -> dict[str, Any]:
        """What the evaluation of this run found: name -> {value, low, high, n, baselines}.

        Raises:
            CheckpointError: it has none.
        """
        return json.loads((find_evaluation(self.folder) / "evaluation.json").read_text(encoding="utf-8"))["results"]

    def curves(self, *keys: str) -> Any:
        """Curves of metrics, to be shown in a cell; train/loss where nothing is named."""
        from IPython.display import HTML

        return HTML(draw_curves({self.folder.name: self.metrics}, keys or ("train/loss",)))

    @property
    def model(self) -> Any:
        """The model (`plait.protocols.UnifiedModel`), in evaluation mode."""
        return self._asker.model

    @property
    def policies(self) -> dict[str, Policy]:
        """How the run samples: "text" (answers), "prose" (stories) and "image"."""
        return self._asker.policies

    @cached_property
    def world(self) -> World:
        """The data of the run.

        Raises:
            RecipeError: it is a saved model, which has none.
        """
        if "world" not in self._assembly.config:
            raise RecipeError(
                f"{self.folder} is a saved model, which comes without data. Next: open the run that it was saved from."
            )
        return self._assembly.build("world")

    @cached_property
    def _assembly(self) -> Assembly:
        config = compose_job("generate", [])
        config.run, config.device, config.dtype = str(self.folder), self._device, self._dtype
        config.paths.root = str(find_project() / config.paths.root)  # one cache, wherever a notebook stands
        adopt_run(config)
        return Assembly(config)

    @cached_property
    def _asker(self) -> Asker:
        assembly = self._assembly
        load_bases(assembly.config, assembly)
        assembly.objects["asker.world"] = (lambda: self.world) if "world" in assembly.config else None
        asker = assembly.build("asker")
        place_parts(assembly.config, assembly)
        return asker

    def _repr_html_(self) -> str:
        import html

        return f"<code>{html.escape(repr(self))}</code>"

    def __repr__(self) -> str:
        if is_saved_model(self.folder):
            return f"Desk({str(self.folder)!r}, a saved model)"
        return f"Desk({str(self.folder)!r}, {'complete' if self.is_complete else 'not complete'})"
