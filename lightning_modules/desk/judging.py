"""The judge of the default world beside a desk: what its model draws and writes is read as an evaluation reads it, in small."""

from lightning_modules.composing.wiring import live_pictures
from lightning_modules.jobs.examination import require_judge
from lightning_modules.workbench import Desk
from plait.evaluation.bench import Bench
from plait.worlds.emoji.examinations.reconstruction import calibrate_oracle


def open_bench(desk: Desk, n: int = 16, calibrated_on: int = 200) -> Bench:
    """A bench (`plait.evaluation`) with the model, the world and the sampling of a run.

    Args:
        n: prompts of each figure.
        calibrated_on: scenes of training, redrawn by the run's tokenizer: the oracle is told how blurred a right picture may be.

    Raises:
        RecipeError: nobody judges pictures of this data.
    """
    pictures = live_pictures(desk.model.vision_tokenizer, desk.world)
    bench = Bench(desk.model, desk.world, require_judge(desk.world), pictures, desk.policies, n=n)
    calibrate_oracle(bench, num_pictures=calibrated_on)
    return bench
