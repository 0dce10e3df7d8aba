"""Hashes of what the package computes, to show that a change of its structure changed no result.

    python scripts/same_results.py before.json                          # on the commit before, in a checkout of its own
    python scripts/same_results.py after.json --against before.json     # on the commit after, on the same machine

Hashed are the bytes of images of the built-in model by every scheduler, of the weights after 20 steps of every
conditioner and of both first stages, and of what the golden cases' networks and runs give. All of it is computed on one
thread, as sums in another order round otherwise. Both files have to be from one machine: kernels differ by processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "training")]

import toy  # noqa: E402
from golden_models import ALL_CASES, load_case  # noqa: E402

from latentdiff import TextToImagePipeline  # noqa: E402
from latentdiff.config import from_mapping  # noqa: E402
from latentdiff.pipelines.codec import decode, encode  # noqa: E402
from latentdiff.registry import SCHEDULERS  # noqa: E402
from latentdiff.training.first_stage.task import train_first_stage  # noqa: E402
from latentdiff.training.recipes import FirstStageRecipe  # noqa: E402

PROMPTS = ["a red apple", "a green car", "a small blue star", "a cat on a yellow ground", "two pears"]
SEEDS = 4
STEPS = 5
FIRST_STAGES = {"kl": toy.VAE, "vq": {**toy.VAE, "_class_name": "VQModel", "num_vq_embeddings": 64}}
TRAINING_STEPS = 20


def digest(value: Any) -> str:
    """SHA-256 of a tensor's or array's bytes."""
    array = value.detach().contiguous().view(torch.uint8).numpy() if isinstance(value, torch.Tensor) else value
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def images() -> Iterator[tuple[str, str]]:
    """20 images of `builtin:emoji` by each scheduler."""
    pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
    pipe.set_progress_bar_config(disable=True)
    for name in SCHEDULERS.names():
        pipe.set_scheduler(name)
        found = pipe(
            [prompt for prompt in PROMPTS for _ in range(SEEDS)],
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            seed=list(range(len(PROMPTS) * SEEDS)),
        ).images
        for number, image in enumerate(found):
            yield f"image/{name}/{number}", digest(np.asarray(image))


def weights(folder: Path) -> Iterator[tuple[str, str]]:
    """Every tensor of a trained folder."""
    for path in sorted(folder.rglob("*.safetensors")):
        if "checkpoint" not in path.parts[len(folder.parts)]:
            for name, tensor in sorted(load_file(path).items()):
                yield f"{path.relative_to(folder).parent.as_posix()}/{name}", digest(tensor)


def trainings(folder: Path) -> Iterator[tuple[str, str]]:
    """Weights after some steps of both first stages and of every conditioner."""
    data = toy.write(folder / "data")
    for kind, model in FIRST_STAGES.items():
        options = {
            "output_dir": str(folder / kind),
            "data": {"train_data_dir": str(data), "resolution": toy.SIDE, "random_flip": True},
            "model": model,
            "loss": {"adversarial": {"discriminator": {"channels": 8, "layers": 2}}},
            "optimizer": {"learning_rate": 2e-3},
            "train_batch_size": 4,
            "max_train_steps": TRAINING_STEPS,
        }
        torch.manual_seed(0)
        output = train_first_stage(from_mapping(FirstStageRecipe, options))
        yield from ((f"training/first-stage/{kind}/{name}", found) for name, found in weights(output))
    for task in toy.TASKS:
        torch.manual_seed(0)
        run = {"max_train_steps": TRAINING_STEPS, "ema.decay": 0.9, "data.random_flip": True}
        output = toy.train(task, data, folder / "kl" / "vae", folder / task, **run)
        yield from ((f"training/{task}/{name}", found) for name, found in weights(output))


@torch.no_grad()
def golden() -> Iterator[tuple[str, str]]:
    """What each golden case's networks give for its inputs, and its sampling run."""
    for name in ALL_CASES:
        case = load_case(name)
        io, condition = case.io, case.conditioning
        for kind, unet in {"unet": case.unet, "unet_ema": case.unet_ema}.items():
            if unet is not None:
                x = io["unet.x"] if condition.concat is None else torch.cat([io["unet.x"], condition.concat], dim=1)
                yield f"golden/{name}/{kind}", digest(unet(x, io["unet.t"], condition.context).sample)
        if "image" in io:
            yield f"golden/{name}/encode", digest(encode(case.vae, io["image"], scaled=True))
        yield f"golden/{name}/decode", digest(decode(case.vae, io["x_T"]))
        for tokens in ("tokens", "uncond_tokens"):
            encoder = case.text_encoder or case.components.get("layout_encoder")
            if encoder is not None and tokens in io:
                yield f"golden/{name}/{tokens}", digest(encoder(io[tokens]).last_hidden_state)
        yield from ((f"golden/{name}/sampled/{step}", digest(x)) for step, x in enumerate(sampled(name)))


def sampled(name: str) -> list[torch.Tensor]:
    """The latents of a case's run, without guidance, after each step."""
    from test_golden_sampling import noise_schedule, trajectory

    from latentdiff import DDIMScheduler

    case = load_case(name)
    return list(trajectory(case, DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))))


def main() -> int:
    """Write the hashes, and compare them if asked; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the JSON file to write")
    parser.add_argument("--against", type=Path, help="a JSON file of another commit to compare with")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = dict([*images(), *golden(), *trainings(Path(folder))])
    args.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} hashes written to {args.output}")
    if args.against is None:
        return 0
    expected = json.loads(args.against.read_text())
    names = sorted({*found, *expected})
    differing = [name for name in names if found.get(name) != expected.get(name)]
    print(f"{len(names) - len(differing)} of {len(names)} are the same", *differing[:20], sep="\n  ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
