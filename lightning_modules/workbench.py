"""A finished run on the desk: opened from disk or W&B, its model asked again with other settings.

It knows that a model completes documents, and neither what is right nor how it was trained. To train it further:
lightning_modules/loops/further.py; to watch one that still trains: lightning_modules/watching.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lightning_modules.instantiate import Assembly
from lightning_modules.jobs.gallery import complete, cut_prompt
from lightning_modules.launch import adopt_run, load_bases
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.mirror import fetch_run
from lightning_modules.wiring import LiveCodes
from plait.data.mixture import encode_images
from plait.document import Document
from plait.errors import CheckpointError, RecipeError
from plait.protocols import Policy
from plait.rendering import Sample
from plait.runs import Run

WANDB_PATH = re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+")


def open_run(place: str | Path, fetched: str | Path = "outputs/wandb") -> Run:
    """A run by its folder, or by its path in W&B; it may still go on.

    Args:
        place: a folder, entity/project/run, or entity/project/artifact:version.
        fetched: where runs from W&B are put.

    Raises:
        CheckpointError: there is no run.
    """
    if Path(place).is_dir():
        return Run(place)
    # a path that begins in a folder of this machine was meant as one
    if not WANDB_PATH.fullmatch(str(place)) or Path(str(place).partition("/")[0]).is_dir():
        raise CheckpointError(
            f"{place} is no folder here and no path of W&B. Expected the folder of a run, entity/project/run, or "
            "entity/project/artifact:version. Next: check the path."
        )
    return Run(fetch_run(str(place), fetched))


class Workbench:
    """The model of a finished run, ready to be asked.

    Args:
        run: folder of a training run.

    Raises:
        RecipeError: it holds no model or has not finished.
    """

    def __init__(self, run: str | Path) -> None:
        config = compose_job("generate", [f"run='{run}'"])
        adopt_run(config)
        assembly = Assembly(config)
        load_bases(config, assembly)
        self.model = assembly.build("model").eval()
        self.world = assembly.build("world")
        self.policies: dict[str, Policy] = {"text": assembly.build("prose_policy"), "image": assembly.build("image_policy")}
        # what is asked for is encoded here: nothing depends on a cache that may lie on another machine
        self._codes = LiveCodes(
            self.model.vision_tokenizer, self.world, assembly.build("tiling") if "tiling" in config else None
        )

    def redraw(
        self,
        prompts: Sequence[str | Document],
        *,
        text: Mapping[str, Any] | None = None,
        image: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
        max_images: int = 2,
        max_tokens: int = 48,
    ) -> list[Sample]:
        """Complete the prompts anew.

        Args:
            prompts: each a description to draw, or a document of the world, which is given up to what is to be learned from it.
            text, image: settings of the policy that differ from the run's own, such as {"guidance": 3.0}.
            seeds: one per prompt; by default 0, 1, ... so that two calls differ in their settings alone.
            max_images, max_tokens: that a document may go on with.

        Raises:
            RecipeError: the policy has no such setting.
            VocabularyError: a word that the model does not know.
        """
        policies = {"text": _change(self.policies["text"], text or {}), "image": _change(self.policies["image"], image or {})}
        documents = [self._prompt(prompt, number) for number, prompt in enumerate(prompts)]
        seeds = range(len(documents)) if seeds is None else seeds
        return complete(self.model, self.world, documents, policies, seeds, max_images=max_images, max_tokens=max_tokens)

    def _prompt(self, prompt: str | Document, number: int) -> Document:
        if isinstance(prompt, str):
            return self.model.template.draw_prompt(prompt)
        return cut_prompt(encode_images(self.model.template.wrap(prompt, number), self._codes))


def _change(policy: Policy, settings: Mapping[str, Any]) -> Policy:
    known = [field.name for field in fields(policy)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise RecipeError(f"The sampling policy has no setting {', '.join(unknown)}. Expected some of {', '.join(known)}.")
    return replace(policy, **settings)
