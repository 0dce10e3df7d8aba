"""What guidance does by its scale, on the model of class_to_image.py: ``python examples/guidance_curves.py``.

The model makes images without a class. A classifier of noisy latents, trained here, leads them to a class; small images
lead them to what they show.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from class_to_image import accuracy, data, nearest
from common import HERE, Array, arguments, builtin_vae, overrides, report, trained
from emoji import MANY, sprites_of
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import in_batches, psnr
from emoji_scenes.render import Sprites
from PIL import Image, ImageDraw

from latentdiff import ClassifierGuidance, ImageGuidance, NoisyLatentClassifier
from latentdiff.config import load_recipe
from latentdiff.guidance.image import downsampling
from latentdiff.training.classifier import train_classifier
from latentdiff.training.recipes import ClassifierRecipe
from latentdiff.viz.drawing import font, text_width

CLASSIFIER_SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
IMAGE_SCALES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
WIDTH, HEIGHT, MARGIN = 380, 260, 44
COLOURS = ((31, 99, 196), (206, 84, 20))


def classifier_of(train: Path, options: Namespace) -> NoisyLatentClassifier:
    """The trained classifier."""
    output = options.work / "runs" / "classifier"
    if not (output / "classifier").exists():
        model = options.work / "runs" / "class-to-image" / "pipeline"
        given = {"data.train_data_dir": str(train), "pretrained_model_name_or_path": str(model)}
        recipe = load_recipe(ClassifierRecipe, HERE / "classifier.yaml", {**given, **overrides(output, options)})
        train_classifier(recipe)
    classifier: NoisyLatentClassifier = NoisyLatentClassifier.from_pretrained(output / "classifier").eval()
    return classifier


def panel(title: str, scales: Sequence[float], curves: dict[str, Sequence[float]]) -> Image.Image:
    """Curves from 0 upwards over scales that stand at equal distances."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    top = max(max(values) for values in curves.values()) * 1.08
    across = [MARGIN + i * (WIDTH - 1.5 * MARGIN) / (len(scales) - 1) for i in range(len(scales))]

    def height(value: float) -> float:
        return HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN)

    draw.text((MARGIN, 4), title, fill="black", font=font(13))
    draw.line([(MARGIN, height(top)), (MARGIN, height(0)), (WIDTH - MARGIN / 2, height(0))], fill="black")
    for x, scale in zip(across, scales, strict=True):
        draw.text((x - text_width(f"{scale:g}", 11) / 2, height(0) + 5), f"{scale:g}", fill="black", font=font(11))
    draw.text((WIDTH / 2 - 12, height(0) + 20), "scale", fill="black", font=font(11))
    for number, (name, values) in enumerate(curves.items()):
        points = [(x, height(value)) for x, value in zip(across, values, strict=True)]
        draw.line(points, fill=COLOURS[number], width=2)
        for (x, y), value in zip(points, values, strict=True):
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=COLOURS[number])
            text = f"{value:.2g}" if value < 10 else f"{value:.0f}"
            draw.text((x - text_width(text, 11) / 2, y - 17), text, fill=COLOURS[number], font=font(11))
        draw.text((MARGIN + 6, 22 + 14 * number), name, fill=COLOURS[number], font=font(11))
    return picture


def sampler(pipe: Any, count: int) -> Callable[[Callable[[slice], Any]], Array]:
    """A function that makes `count` images without a class, guided by what its argument makes of a part of them."""
    null = pipe.class_embedder.config.null_class

    def made(guide: Callable[[slice], Any]) -> Array:
        def one(part: slice, seed: int) -> Any:
            settings = {"guidance_scale": 1.0, "num_inference_steps": 25, "output_type": "np"}
            return pipe([null] * (part.stop - part.start), seed=seed, guidance=[guide(part)], **settings).images

        return in_batches(one, count)

    return made


def by_classifier(pipe: Any, classifier: NoisyLatentClassifier, labels: list[str], sprites: Sprites) -> list[float]:
    """Share of images of the class wanted, in per cent, by scale."""
    made, shares = sampler(pipe, len(labels)), []
    for scale in CLASSIFIER_SCALES:
        images = made(lambda part, scale=scale: ClassifierGuidance(classifier, labels[part], scale))
        shares.append(accuracy(nearest(images, sprites), labels))
    return shares


def by_images(pipe: Any, truth: Array) -> tuple[list[float], list[float]]:
    """Distance to the small images relative to none, and PSNR to the large ones in dB, by scale."""
    made, transform = sampler(pipe, len(truth)), downsampling(4)
    targets = transform(torch.from_numpy(truth).float().permute(0, 3, 1, 2) * 2 - 1)
    distances, likeness = [], []
    for scale in IMAGE_SCALES:
        images = made(lambda part, scale=scale: ImageGuidance(pipe.vae, targets[part], scale, transform=transform))
        small = transform(torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1)
        distances.append(float((small - targets).square().mean()))
        likeness.append(psnr(images, truth))
    return [value / distances[0] for value in distances], likeness


def main() -> None:
    """Measure and draw."""
    options = arguments(__doc__)
    sprites = sprites_of(MANY, options.work)
    train, held_out = data(options, sprites)
    pipe = trained("class-to-image", train, builtin_vae(options.work), options)
    rows, truth = read_images(held_out, options.samples)

    shares = by_classifier(pipe, classifier_of(train, options), [row["label"] for row in rows], sprites)
    report("classifier-guidance", [f"{s:g}" for s in CLASSIFIER_SCALES], {"class, %": shares}, options.work)
    distances, likeness = by_images(pipe, truth)
    lines = {"distance, relative": distances, "PSNR to the large image, dB": likeness}
    report("image-guidance", [f"{s:g}" for s in IMAGE_SCALES], lines, options.work)

    sheet = Image.new("RGB", (2 * WIDTH, HEIGHT), "white")
    sheet.paste(panel("classifier guidance", CLASSIFIER_SCALES, {"images of the class wanted, %": shares}))
    title = "image guidance, four times smaller"
    sheet.paste(panel(title, IMAGE_SCALES, {"squared distance to the target, relative": distances}), (WIDTH, 0))
    sheet.quantize(32).save(options.work / "guidance.png", optimize=True)


if __name__ == "__main__":
    main()
