"""The model that ships: it is whole and small, and it listens."""

from pathlib import Path

import numpy as np
import pytest

import latentdiff
from latentdiff import TextToImagePipeline
from latentdiff.cli.main import main

FOLDER = Path(latentdiff.__file__).parent / "builtin" / "emoji"


@pytest.fixture(scope="module")
def pipe():
    return TextToImagePipeline.from_pretrained("builtin:emoji")


def images(pipe, prompts, **options):
    return pipe(prompts, num_inference_steps=12, seed=0, output_type="np", **options).images


def test_size_and_card():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 24e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("apache-2.0", "Noto", "recipes/emoji", "## Figures", "## Limits"))


@pytest.mark.thorough
def test_background_follows_the_prompt(pipe):
    colours = {"red": (0.9, 0.2, 0.2), "green": (0.3, 0.7, 0.3), "blue": (0.2, 0.45, 0.9), "yellow": (1.0, 0.9, 0.3)}
    found = images(pipe, [f"a cat on a {colour} background" for colour in colours])
    corners = found[:, [2, 2, -3, -3], [2, -3, 2, -3]].mean(axis=1)
    expected = np.array(list(colours.values()))
    distance = np.linalg.norm(corners[:, None] - expected[None], axis=-1)
    assert distance.argmin(axis=1).tolist() == list(range(len(colours)))


def test_object_follows_the_prompt(pipe):
    """A red apple is redder than a green one, and a blank image is neither."""
    red, green = images(pipe, ["a red apple", "a green apple"])
    assert (red[..., 0] - red[..., 1]).mean() > 0.05 > (green[..., 0] - green[..., 1]).mean()


def test_command_writes_an_image(tmp_path, capsys):
    out = tmp_path / "apple.png"
    assert main(["generate", "a red apple", "--steps", "4", "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
