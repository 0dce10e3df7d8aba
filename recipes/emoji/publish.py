"""Makes the folder that ships: ``python recipes/emoji/publish.py MODEL OUT --scores scores.json``.

Weights are stored in half precision. The figures of the model card are those of the evaluation's JSON file, so a card
cannot claim what was not measured.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from evaluate import markdown

from latentdiff import TextToImagePipeline
from latentdiff.io.files import atomic_folder

CARD = Path(__file__).with_name("model_card.md")


def card(pipe: Any, scores: dict[str, Any], num_images: int, notes: str) -> str:
    """The model card."""
    networks = (pipe.vae, pipe.text_encoder, pipe.unet)
    side = pipe.unet.config.sample_size
    return CARD.read_text(encoding="utf-8").format(
        parameters=sum(p.numel() for network in networks for p in network.parameters()) / 1e6,
        resolution=side * pipe.vae_scale_factor,
        images=num_images,
        objects=scores["objects"],
        factor=pipe.vae_scale_factor,
        latent=f"{side}x{side}x{pipe.vae.config.latent_channels}",
        notes=f"- **Training**: {notes}\n" if notes else "",
        limit=scores["limit"],
        steps=scores["num_inference_steps"],
        scale=scores["guidance_scale"],
        table=markdown(scores["table"]),
        psnr=scores["first_stage_psnr"],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of the trained pipeline")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--scores", type=Path, required=True, help="what evaluate.py wrote with --json")
    parser.add_argument("--num-images", type=int, default=40_000, help="of the training data")
    parser.add_argument("--notes", default="", help="a sentence on how it was trained")
    options = parser.parse_args()
    scores = json.loads(options.scores.read_text(encoding="utf-8"))
    pipe = TextToImagePipeline.from_pretrained(options.model)
    text = card(pipe, scores, options.num_images, options.notes)
    for network in (pipe.vae, pipe.text_encoder, pipe.unet):
        network.to(torch.float16)
    with atomic_folder(options.out) as aside:
        pipe.save_pretrained(aside)
        (aside / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
