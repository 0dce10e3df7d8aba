"""Makes the pictures of README.md by the commands that stand under them: ``python scripts/readme_pictures.py``.

A picture `docs/pictures/NAME.png` has what its command is given, if that is an image, a layout or a mask, and the
images that it makes. Of commands for which there is no model yet, a line says so. `--inputs` makes what the commands
are given anew, by the built-in text model, and `--badges` the badges.
"""

import argparse
import contextlib
import io
import json
import re
import shlex
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

from latentdiff import DiffusionPipeline, __version__
from latentdiff.cli.main import main as latentdiff
from latentdiff.viz import draw_boxes, draw_label_map, image_grid

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
ENTRY = re.compile(r"!\[[^\]]*\]\(docs/pictures/(\w+)\.png\)<br>`(latentdiff [^`]+)`")
SIDE = 64
SHADES = {"grey": "#555", "blue": "#2a6fbb"}


def commands() -> dict[str, list[str]]:
    """The names of README's pictures to the words of their commands."""
    return {
        name: shlex.split(line)[1:] for name, line in ENTRY.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    }


def made(words: list[str]) -> list[Image.Image]:
    """The images that a command makes, in the order in which it names them.

    Raises:
        SystemExit: If the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = words.index("-o") + 1
        here = [*words[:place], f"{folder}/{words[place]}", *words[place + 1 :]]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = latentdiff(here)
        if code:
            raise SystemExit(code)
        images = []
        for line in printed.getvalue().splitlines():
            with Image.open(line.split("\t")[0]) as image:
                images.append(image.convert("RGB"))
        return images


def given(words: list[str]) -> list[Image.Image]:
    """What a command is given, as one sees it, in the size of its images."""
    mask = Path(words[words.index("--mask") + 1]) if "--mask" in words else None
    files = [Path(word) for word in words if word.startswith("docs/pictures/") and Path(word) != mask]
    shown = []
    for path in files:
        if path.suffix == ".json":
            layout = json.loads(path.read_text(encoding="utf-8"))
            blank = Image.new("RGB", (SIDE * 2, SIDE * 2), "white")
            shown.append(draw_boxes(blank, layout["objects"], image_size=(layout["height"], layout["width"])))
        elif words[0] == "semantic":
            shown.append(draw_label_map(path, 1 + int(np.asarray(Image.open(path)).max()), legend=False))
        else:
            image = Image.open(path).convert("RGB")
            if mask is not None:
                image.paste(Image.new("RGB", image.size, "silver"), mask=Image.open(mask))
            shown.append(image)
    return [image.resize((SIDE * 2, SIDE * 2), Image.Resampling.NEAREST) for image in shown]


def picture(words: list[str]) -> Image.Image:
    """What a command is given and makes, in a row."""
    images = [image.resize((SIDE * 2, SIDE * 2), Image.Resampling.NEAREST) for image in made(words)]
    row = [*given(words), *images]
    return image_grid(row, columns=len(row), margin=4)


def write_inputs() -> None:
    """Make what the commands are given, of images of the built-in text model."""
    pipe = DiffusionPipeline.from_pretrained("builtin:emoji")

    def draw(*prompts: str) -> list[Image.Image]:
        return pipe(list(prompts), num_inference_steps=50, guidance_scale=5.0, seed=0).images

    apple, house, tree, cat = draw("a red apple", "a house", "a tree", "a cat")
    apple.save(PICTURES / "photo.png")
    hole = np.zeros((SIDE, SIDE), np.uint8)
    hole[24:52, 30:58] = 255
    Image.fromarray(hole).save(PICTURES / "hole.png")
    cat.resize((SIDE // 4, SIDE // 4), Image.Resampling.BICUBIC).save(PICTURES / "small.png")
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for image, label, left in ((house, 11, 2), (tree, 4, 34)):  # in the order of the label maps' classes
        solid = np.asarray(image.resize((28, 28)).convert("L")) < 235
        labels[18:46, left : left + 28][solid] = label
    Image.fromarray(labels).save(PICTURES / "map.png")
    objects = [{"class": "apple", "box": [4, 30, 26, 28]}, {"class": "tree", "box": [30, 4, 32, 40]}]
    text = json.dumps({"width": SIDE, "height": SIDE, "objects": objects})
    (PICTURES / "boxes.json").write_text(text + "\n", encoding="utf-8")


def write_badges(folder: Path) -> None:
    """Make the badges, of what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    badges = {
        "python": ("python", f"{project['requires-python'].removeprefix('>=')}+"),
        "version": ("version", __version__),
        "licence": ("licence", project["license"]),
        "typed": ("typed", "mypy --strict"),
    }
    for name, (left, right) in badges.items():
        first, second = 7 * len(left) + 10, 7 * len(right) + 10
        label = 'y="14" font-family="Verdana, sans-serif" font-size="11" fill="white" text-anchor="middle"'
        (folder / f"badge-{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{first + second}" height="20" role="img">'
            f"<title>{left}: {right}</title>"
            f'<rect width="{first}" height="20" fill="{SHADES["grey"]}"/>'
            f'<rect x="{first}" width="{second}" height="20" fill="{SHADES["blue"]}"/>'
            f'<text x="{first / 2}" {label}>{left}</text>'
            f'<text x="{first + second / 2}" {label}>{right}</text></svg>\n',
            encoding="utf-8",
        )


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(commands())}; default: all")
    parser.add_argument("--inputs", action="store_true", help="make what the commands are given")
    parser.add_argument("--badges", action="store_true", help="make the badges")
    options = parser.parse_args()
    if unknown := set(options.names) - commands().keys():
        raise SystemExit(f"README.md has no picture {', '.join(sorted(unknown))}; it has {', '.join(commands())}")
    PICTURES.mkdir(exist_ok=True)
    if options.badges:
        write_badges(PICTURES)
    if options.inputs:
        write_inputs()
    missing = []
    for name in options.names or ([] if options.inputs or options.badges else commands()):
        try:
            with contextlib.chdir(ROOT):
                picture(commands()[name]).save(PICTURES / f"{name}.png", optimize=True)
        except SystemExit:
            missing.append(name)
    if missing:
        sys.exit(f"not made: {', '.join(missing)}")


if __name__ == "__main__":
    main()
