"""Which step of a run is the best: ``python examples/choosing.py``, on the run of unconditional.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from class_to_image import data
from common import Array, arguments, builtin_vae, report, trained
from emoji import MANY, sprites_of
from emoji_scenes.pixels import in_batches, pictures

from latentdiff import DiffusionPipeline
from latentdiff.evaluation.samples import evaluate_samples
from latentdiff.io.files import atomic_folder

FEATURES = "efficientnet_lite0"
OTHER_SEEDS = 10**6  # far from those that training chose by


def main() -> None:
    """Print the Fréchet distance of the first validation, of the best and of the last.

    The lowest of several numbers is a little too low, as chance had a part in the choice. So the model in `best/` and
    the last one are also compared by other samples, with images that were neither trained on nor chosen by.
    """
    options = arguments(__doc__)
    train, held_out = data(options, sprites_of(MANY, options.work))
    often = {"validation.steps": max(1, options.max_train_steps // 4)} if options.max_train_steps else {}
    trained("unconditional", train, builtin_vae(options.work), options, **often)
    run = options.work / "runs" / "unconditional"
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    looks = [line for line in lines if "validation/best_step" in line]
    name = next(key for key in looks[0] if key.startswith("validation/frechet"))
    best = next(line for line in looks if line["step"] == looks[-1]["validation/best_step"])
    models, folder = {"best": run / "best" / "pipeline", "last": run / "pipeline"}, options.work / "choosing"
    anew = [measured(model, folder / which, held_out, options.samples) for which, model in models.items()]
    shown = {"first": looks[0], "best": best, "last": looks[-1]}
    report(
        "choosing",
        [f"{which}, step {line['step']:g}" for which, line in shown.items()],
        {
            name.removeprefix("validation/"): [line[name] for line in shown.values()],
            "other samples, images held out": [float("nan"), *anew],
        },
        options.work,
    )


def measured(model: Path, samples: Path, reference: Path, count: int, **options: Any) -> float:
    """The Fréchet distance of a model's samples, which are made unless they are there, to the images of a folder."""
    if not samples.exists():
        pipe = DiffusionPipeline.from_pretrained(model)
        pipe.set_progress_bar_config(disable=True)
        call = {"num_inference_steps": 25, "output_type": "np", **options}

        def made(part: slice, seed: int) -> Array:
            return np.asarray(pipe(part.stop - part.start, seed=OTHER_SEEDS + seed, **call).images)

        with atomic_folder(samples) as aside:
            for number, image in enumerate(pictures(in_batches(made, count))):
                image.save(aside / f"{number:05d}.png")
    return evaluate_samples(samples, reference, metrics=["frechet"], features=FEATURES).value("frechet")


if __name__ == "__main__":
    main()
